"""Tiny checkpoints as others write them once they have quantised to integers: packed here one number after another.

Sources: pack_to_int32 and pack_fp4_to_uint8 of compressed-tensors; QuantLinear.pack of AutoGPTQ;
WQLinear_GEMM.from_linear of AutoAWQ.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tiny_model import FAMILIES, save

from llmrun.checkpoint.integers import Source
from llmrun.checkpoint.read import read_spec
from llmrun.hub.repacked import record_of
from llmrun.quantize.job import Job, run
from llmrun.quantize.repack import repack_job, repacking, source_of

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}


FORMATS = {"packed": "pack-quantized", "bytes": "int-quantized", "mxfp4": "mxfp4-pack-quantized"}
FLOATS = (0, 0.5, 1, 1.5, 2, 3, 4, 6)  # of E2M1, by their lower three bits; the highest is the sign


@dataclass(frozen=True)
class Kind:
    """One way to quantise; ``group`` 0 is the whole row."""

    layout: str  # packed, bytes, mxfp4, gptq, gptq_v2, awq
    bits: int = 4
    group: int = 32
    symmetric: bool = True
    act_order: bool = False
    scale_dtype: torch.dtype = torch.float16

    def config(self) -> dict[str, Any]:
        """The ``quantization_config``."""
        if self.layout.startswith("gptq"):
            return {
                "quant_method": "gptq",
                "bits": self.bits,
                "group_size": self.group or -1,
                "sym": self.symmetric,
                "desc_act": self.act_order,
                "checkpoint_format": self.layout,
            }
        if self.layout == "awq":
            return {"quant_method": "awq", "bits": 4, "group_size": self.group, "zero_point": True, "version": "gemm"}
        weights = {
            "num_bits": self.bits,
            "type": "float" if self.layout == "mxfp4" else "int",
            "symmetric": self.symmetric,
            "strategy": "group" if self.group else "channel",
            "group_size": self.group or None,
            "actorder": "group" if self.act_order else None,
        }
        return {
            "quant_method": "compressed-tensors",
            "format": FORMATS[self.layout],
            "quantization_status": "compressed",
            "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
            "sparsity_config": {"format": "dense"},
        }


@dataclass(frozen=True)
class Integers:
    """A matrix: weight = scale[row, group] * (code - zero[row, group])."""

    codes: np.ndarray[Any, Any]  # (rows, columns), from 0 to 2**bits - 1
    scales: torch.Tensor  # (rows, groups)
    zeros: np.ndarray[Any, Any]  # (rows, groups), as large as codes
    groups: np.ndarray[Any, Any]  # of each column

    def weights(self) -> torch.Tensor:
        """What they mean, in double."""
        zeros = torch.from_numpy(self.zeros)[:, self.groups]
        return self.scales.double()[:, self.groups] * (torch.from_numpy(self.codes) - zeros).double()


def random_integers(kind: Kind, rows: int, columns: int, seed: int) -> Integers:
    rng = np.random.default_rng(seed)
    n_groups = -(-columns // (kind.group or columns))
    if kind.layout == "mxfp4":
        return _random_floats(rng, rows, columns)
    codes = rng.integers(0, 2**kind.bits, (rows, columns))
    scales = torch.from_numpy(rng.uniform(0.5, 2, (rows, n_groups)) * 0.3 / 2**kind.bits).to(kind.scale_dtype)
    middle = 2 ** (kind.bits - 1)
    zeros = rng.integers(0, 2**kind.bits, (rows, n_groups)) if not kind.symmetric else np.full((rows, n_groups), middle)
    groups = np.arange(columns) // (kind.group or columns)
    return Integers(codes, scales, zeros, rng.permutation(groups) if kind.act_order else groups)


def _random_floats(rng: np.random.Generator, rows: int, columns: int) -> Integers:
    """Floats of four bits as codes, -0 among them, and powers of two."""
    codes = rng.choice([*FLOATS, *(-number for number in FLOATS)], (rows, columns))
    scales = torch.from_numpy(2.0 ** rng.integers(-6, -2, (rows, columns // 32)))
    return Integers(codes, scales, np.zeros((rows, columns // 32)), np.arange(columns) // 32)


def pack(numbers: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Numbers (n, m) to words of int32 (n, ceil(m * bits / 32)), the first number of a word lowest."""
    per_word = 32 // bits
    words = np.zeros((numbers.shape[0], -(-numbers.shape[1] // per_word)), dtype=np.uint32)
    for at in range(numbers.shape[1]):
        words[:, at // per_word] |= numbers[:, at].astype(np.uint32) << np.uint32(bits * (at % per_word))
    return words.view(np.int32)


def _awq(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Eight columns to a word in AWQ's order."""
    ordered = [8 * (at // 8) + AWQ_ORDER[at % 8] for at in range(numbers.shape[1])]
    return pack(numbers[:, ordered], 4)


def stored(kind: Kind, made: Integers) -> dict[str, torch.Tensor]:
    """The tensors of a matrix by the ends of their names."""
    bits = kind.bits
    groups = torch.from_numpy(made.groups.astype(np.int32))
    if kind.layout.startswith("gptq"):
        less = 1 if kind.layout == "gptq" else 0
        parts = {
            "qweight": pack(made.codes, bits).T,
            "qzeros": pack((made.zeros.T - less) % 2**bits, bits),
            "scales": made.scales.T,
            "g_idx": groups,
        }
    elif kind.layout == "awq":
        parts = {"qweight": _awq(made.codes.T), "qzeros": _awq(made.zeros.T), "scales": made.scales.T}
    elif kind.layout == "mxfp4":
        bits4 = np.vectorize(FLOATS.index)(np.abs(made.codes)) + 8 * np.signbit(made.codes)
        exponents = (torch.log2(made.scales) + 127).to(torch.uint8)
        parts = {"weight_packed": pack(bits4, 4).view(np.uint8), "weight_scale": exponents}
    elif kind.layout == "bytes":
        parts = {"weight": (made.codes - 128).astype(np.int8), "weight_scale": made.scales}
    else:
        parts = {"weight_packed": pack(made.codes, bits), "weight_scale": made.scales}
        parts["weight_shape"] = torch.tensor(made.codes.shape)
        parts |= {"weight_zero_point": pack(made.zeros.T, bits).T} if not kind.symmetric else {}
        parts |= {"weight_g_idx": groups} if kind.act_order else {}
    return {
        name: (torch.from_numpy(np.ascontiguousarray(part)) if isinstance(part, np.ndarray) else part).contiguous()
        for name, part in parts.items()
    }


def write_integers(
    folder: Path, kind: Kind, *, family: str = "llama", dtype: torch.dtype = torch.float16, **changes: Any
) -> Any:
    """A checkpoint whose layers' matrices are quantised; the model with what they mean as its weights, in fp32."""
    model = FAMILIES[family].build(**WIDE, **changes)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).float()
    meant: dict[str, torch.Tensor] = {}
    save(model, folder, dtype=dtype)
    tensors = load_file(folder / "model.safetensors")
    for seed, name in enumerate(sorted(tensors)):
        if "layers." in name and tensors[name].dim() == 2:
            made = random_integers(kind, *tensors.pop(name).shape, seed)
            meant[name] = made.weights().float()
            module = name.removesuffix("weight")
            tensors |= {module + part: tensor for part, tensor in stored(kind, made).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": kind.config()}))
    model.float().load_state_dict(meant, strict=False)
    return model


def change(folder: Path, tensors: dict[str, torch.Tensor | None]) -> None:
    """Other tensors of these names; ``None``: away with it."""
    there = load_file(folder / "model.safetensors") | tensors
    save_file({n: t for n, t in there.items() if t is not None}, folder / "model.safetensors", {"format": "pt"})


def job_of(folder: Path, target: Path, **options: int) -> tuple[Job, Source]:
    source = source_of(folder)
    return repack_job(folder, source, read_spec(folder), target, record_of(folder), **options), source


def repacked(folder: Path, target: Path, chunk: int = 700) -> Path:
    """Some rows at a time, whatever a matrix has."""
    job, source = job_of(folder, target)
    run(job, repacking(folder, source, chunk), lambda there, whole: lambda nbytes: None)
    return target
