"""What rounding to each weight format loses: llmrun's search against the rounding of gguf and of llama.cpp.

    python benchmarks/quantise_error.py --llama-quantize BIN weights.safetensors pretrained.pt
    python benchmarks/quantise_error.py --model FOLDER --text FILE

The first form says the relative error |w' - w| / |w| of matrices: normal ones, heavy-tailed ones (Student's t with four
degrees of freedom), and every float matrix of the files that is made of blocks of 256. The second rounds the linear
layers of a model and says the mean KL divergence of what it predicts from what it predicted before, over a text that it
was not calibrated on. Weights that were imported from a 4-bit file are no evidence: they lie on that file's grid.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import gguf
import torch
from common import table
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from torch import Tensor

from llmrun.formats import FORMATS, WeightFormat, weight_format
from llmrun.kernels.reference import dequantise
from llmrun.quantize.rounding import quantise

FILE_TYPES = {"Q8_0": "Q8_0", "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q5_0": "Q5_0", "Q5_1": "Q5_1"}
FILE_TYPES |= {"Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "Q6_K": "Q6_K"}  # llama-quantize's names for "all in this type"
BLOCKED = [fmt for fmt in FORMATS.values() if not fmt.is_plain]
ROWS, COLUMNS = 1024, 2048
STRETCH_TOKENS = 256
Model: TypeAlias = Any  # a class of transformers, which has no types
Rounding: TypeAlias = Callable[[str, Tensor], Tensor | None]


def made_matrices() -> dict[str, dict[str, Tensor]]:
    """Random ones, the same in every run."""
    torch.manual_seed(0)
    tailed = torch.distributions.StudentT(4.0).sample((ROWS, COLUMNS))
    return {"normal": {"normal": torch.randn(ROWS, COLUMNS)}, "Student's t (4)": {"t": 0.02 * tailed}}


def matrices_of(path: Path) -> dict[str, Tensor]:
    """Every float matrix of a file whose rows are made of blocks of 256."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        found: Mapping[str, Any] = load_file(path)
    else:
        found = _flat(torch.load(path, map_location="cpu", weights_only=True))
    return {
        name: tensor.float()
        for name, tensor in found.items()
        if tensor.dim() == 2 and tensor.is_floating_point() and tensor.shape[1] % 256 == 0
    }


def _flat(state: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    for value in state.values():
        if isinstance(value, dict):
            tensors |= _flat(value)
    return tensors


def relative(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """|w' - w| / |w| over all matrices together."""
    lost = sum(float((after[name] - tensor).square().sum()) for name, tensor in before.items())
    return (lost / sum(float(tensor.square().sum()) for tensor in before.values())) ** 0.5


def by_llmrun(fmt: WeightFormat, weights: Tensor, importance: Tensor | None = None) -> Tensor:
    """There and back by llmrun."""
    return dequantise(fmt, quantise(fmt, weights, importance), weights.shape[1])


def by_gguf(fmt: WeightFormat, weights: Tensor) -> Tensor | None:
    """There and back by the package gguf, which rounds as ggml's reference does; it has no K formats."""
    kind = GGMLQuantizationType[fmt.name]
    try:
        return torch.from_numpy(dequantize(quantize(weights.numpy(), kind), kind))
    except NotImplementedError:
        return None


def by_llama_cpp(binary: Path, fmt: WeightFormat, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """There and back by ``llama-quantize --pure``, in a file that calls them matrices of a Llama."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "f32.gguf"), Path(folder, "done.gguf")
        _write_gguf(source, matrices)
        command = [binary, "--pure", source, target, FILE_TYPES[fmt.name], "2"]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        done = {
            tensor.name: torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
            for tensor in gguf.GGUFReader(target).tensors
            if tensor.tensor_type.name == fmt.name
        }
    return {name: done[_gguf_name(number)] for number, name in enumerate(matrices)}


def _write_gguf(path: Path, matrices: Mapping[str, Tensor]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_context_length, 64),
        (writer.add_embedding_length, 256),
        (writer.add_block_count, len(matrices)),
        (writer.add_feed_forward_length, 256),
        (writer.add_head_count, 4),
        (writer.add_vocab_size, 32),
        (writer.add_layer_norm_rms_eps, 1e-5),
    ):
        add(value)
    for number, tensor in enumerate(matrices.values()):
        writer.add_tensor(_gguf_name(number), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(number: int) -> str:
    return f"blk.{number}.ffn_up.weight"


def error_rows(matrices: Mapping[str, Tensor], llama_quantize: Path | None) -> Iterator[list[str]]:
    """A row of the table for each format."""
    for fmt in sorted(BLOCKED, key=lambda fmt: fmt.bits_per_weight):
        ours = relative(matrices, {name: by_llmrun(fmt, tensor) for name, tensor in matrices.items()})
        if llama_quantize:
            theirs: float | None = relative(matrices, by_llama_cpp(llama_quantize, fmt, matrices))
        else:
            done = {name: by_gguf(fmt, tensor) for name, tensor in matrices.items()}
            known = {name: tensor for name, tensor in done.items() if tensor is not None}
            theirs = relative(matrices, known) if known else None
        said = ["-", "-"] if theirs is None else [f"{theirs:.2%}", f"{ours / theirs:.3f}"]
        yield [fmt.name, f"{fmt.bits_per_weight:.2f}", f"{ours:.2%}", *said]


def divergence_rows(folder: Path, text: Path) -> Iterator[list[str]]:
    """The model with its linear layers rounded, against itself."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(text.read_text(encoding="utf-8"), return_tensors="pt").input_ids[:, :1024]
    importance = column_importance_of(folder, tokenizer)
    before = _log_probabilities(model, tokens)
    for fmt in (weight_format(name) for name in ("Q4_0", "Q4_1", "Q4_K", "Q8_0")):
        for way, rounding in roundings(fmt, importance).items():
            with rounded_layers(model, fmt, rounding) as matrices:
                if not matrices:
                    continue  # gguf has no K formats
                after = _log_probabilities(model, tokens)
            kl = float((before.exp() * (before - after)).sum(-1).mean())
            same = float((before.argmax(-1) == after.argmax(-1)).float().mean())
            yield [fmt.name, way, str(matrices), f"{kl:.5f}", f"{same:.1%}"]


def roundings(fmt: WeightFormat, importance: Mapping[str, Tensor]) -> dict[str, Rounding]:
    """The ways that are compared, each from a matrix and its name to what it is after it."""
    return {
        "gguf": lambda name, weights: by_gguf(fmt, weights),
        "llmrun": lambda name, weights: by_llmrun(fmt, weights),
        "llmrun, calibrated": lambda name, weights: by_llmrun(fmt, weights, importance[name]),
    }


@contextmanager
def rounded_layers(model: Model, fmt: WeightFormat, rounding: Rounding) -> Iterator[int]:
    """With the layers' matrices that are made of such blocks rounded: how many these are."""
    kept = _round_layers(model, fmt, rounding)
    try:
        yield len(kept)
    finally:
        for name, weights in kept.items():
            model.get_submodule(name).weight.data = weights


def _round_layers(model: Model, fmt: WeightFormat, rounding: Rounding) -> dict[str, Tensor]:
    kept = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in name and module.in_features % fmt.block_weights == 0:
            after = rounding(f"{name}.weight", module.weight.data)
            if after is not None:
                kept[name] = module.weight.data
                module.weight.data = after
    return kept


@torch.inference_mode()
def _log_probabilities(model: Model, tokens: Tensor) -> Tensor:
    logits = [model(input_ids=stretch).logits[0] for stretch in tokens.split(STRETCH_TOKENS, dim=1)]
    return torch.cat(logits).log_softmax(-1)


def column_importance_of(folder: Path, tokenizer: Model) -> dict[str, Tensor]:
    """How much the columns of each matrix matter, over llmrun's own calibration text."""
    from importlib.resources import files

    from llmrun.checkpoint.read import read_spec
    from llmrun.engine.calibration import column_importance

    text = files("llmrun.quantize").joinpath("calibration.txt").read_text(encoding="utf-8")
    return column_importance(read_spec(folder), tokenizer(text).input_ids, done=lambda unit: None)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="safetensors or PyTorch files with float matrices")
    parser.add_argument("--llama-quantize", type=Path, help="compare with this binary, not with the package gguf")
    parser.add_argument("--model", type=Path, help="a checkpoint whose predictions are compared")
    parser.add_argument("--text", type=Path, help="what it predicts")
    args = parser.parse_args()
    if args.model:
        header = ["format", "rounding", "matrices", "KL, nats a token", "same first choice"]
        print(table(header, list(divergence_rows(args.model, args.text))))
        return
    theirs = "llama-quantize" if args.llama_quantize else "gguf"
    for name, matrices in (made_matrices() | {str(path.name): matrices_of(path) for path in args.files}).items():
        n_weights = sum(tensor.numel() for tensor in matrices.values())
        print(f"\n{name}: {len(matrices)} matrices, {n_weights:,} weights\n")
        header = ["format", "bits", "llmrun", theirs, "ratio"]
        print(table(header, list(error_rows(matrices, args.llama_quantize))))


if __name__ == "__main__":
    main()
