"""Integers of others, taken apart and made blocks: nothing changes but what is said to."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from integer_checkpoints import Integers, Kind, change, job_of, random_integers, repacked, stored, write_integers
from safetensors.torch import load_file

from llmrun.checkpoint.files import HeadersOnly
from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.checkpoint.integers import REPACKED
from llmrun.checkpoint.read import read_spec, spec_from_headers
from llmrun.errors import Interrupted
from llmrun.formats import weight_format
from llmrun.hub.repacked import record_of, target_of
from llmrun.kernels.reference import dequantise
from llmrun.quantize.job import run
from llmrun.quantize.repack import held_bytes, repacking, source_of

UP = "model.layers.1.mlp.up_proj"
DOWN = "model.layers.1.mlp.down_proj"


def floats(folder: Path, name: str) -> tuple[str, torch.Tensor]:
    """The format of a matrix, and what it means in double."""
    tensor = next(t for unit in read_spec(folder).units for t in unit.tensors if t.name == name)
    data = load_file(folder / tensor.file)[name]
    rows = data.view(torch.uint8).reshape(tensor.shape[0], -1)
    return tensor.dtype, dequantise(weight_format(tensor.dtype), rows, tensor.shape[1]).double()


def written(folder: Path, kind: Kind, made: Integers) -> Path:
    """A checkpoint with ``made`` as one of its matrices."""
    write_integers(folder, kind)
    change(folder, {f"{UP}.{part}": tensor for part, tensor in stored(kind, made).items()})
    return folder


EXACT = [
    Kind("packed"),
    Kind("packed", group=0),
    Kind("packed", scale_dtype=torch.bfloat16),
    Kind("packed", bits=8),
    Kind("bytes", bits=8, group=0),
    Kind("gptq"),
    Kind("gptq_v2"),
    Kind("gptq", bits=8, group=0),
    Kind("mxfp4"),
]


@pytest.mark.parametrize("kind", EXACT, ids=str)
def test_around_the_middle_every_weight_is_what_it_was(kind: Kind, tmp_path: Path) -> None:
    made = random_integers(kind, 96, 64, seed=5)
    folder = repacked(written(tmp_path / "its", kind, made), tmp_path / "made")
    name, found = floats(folder, f"{UP}.weight")
    assert name == ("Q5_0" if kind.layout == "mxfp4" else "Q4_0" if kind.bits == 4 else "Q8_0")
    assert torch.equal(found, made.weights())


ZEROS = [Kind("packed"), Kind("gptq", group=0), Kind("gptq_v2"), Kind("awq")]


@pytest.mark.parametrize("kind", [replace(kind, symmetric=False) for kind in ZEROS], ids=str)
def test_with_a_zero_of_its_own_the_minimum_is_rounded_to_fp16(kind: Kind, tmp_path: Path) -> None:
    made = random_integers(kind, 96, 64, seed=6)
    folder = repacked(written(tmp_path / "its", kind, made), tmp_path / "made")
    name, found = floats(folder, f"{UP}.weight")
    assert name == "Q4_1"
    scales = made.scales.double()[:, made.groups]
    minima = scales * torch.from_numpy(made.zeros)[:, made.groups]
    error = (found - made.weights()).abs()
    assert (error <= minima * 2**-11 * 1.001).all()  # the sum is taken in fp32
    assert (error / scales).max() <= 15 * 2**-11
    assert error.any()


@pytest.mark.parametrize("kind", [Kind("gptq", act_order=True), Kind("packed", act_order=True)], ids=str)
def test_columns_out_of_order_become_plain_numbers(kind: Kind, tmp_path: Path) -> None:
    made = random_integers(kind, 96, 64, seed=7)
    folder = repacked(written(tmp_path / "its", kind, made), tmp_path / "made")
    name, found = floats(folder, f"{UP}.weight")
    assert name == "F16"
    torch.testing.assert_close(found, made.weights(), rtol=2**-11, atol=0)


def test_exponents_that_fp16_has_not_in_full(tmp_path: Path) -> None:
    kind = Kind("mxfp4")
    made = random_integers(kind, 96, 64, seed=8)
    made.scales[::2] = made.scales[::2] * 2**-20  # below the least number of fp16, once halved
    folder = repacked(written(tmp_path / "its", kind, made), tmp_path / "made")
    _, found = floats(folder, f"{UP}.weight")
    assert torch.equal(found[1::2], made.weights()[1::2])
    assert (found - made.weights()).abs().max() <= 12 * 2**-25


def test_whole_blocks_out_of_order_stay_blocks(tmp_path: Path) -> None:
    kind = Kind("gptq", act_order=True)
    made = random_integers(kind, 96, 64, seed=8)
    made = replace(made, groups=1 - np.arange(64) // 32)
    folder = repacked(written(tmp_path / "its", kind, made), tmp_path / "made")
    name, found = floats(folder, f"{UP}.weight")
    assert (name, torch.equal(found, made.weights())) == ("Q4_0", True)


def test_scales_in_fp32_are_rounded_to_fp16(tmp_path: Path) -> None:
    kind = Kind("bytes", bits=8, group=0, scale_dtype=torch.float32)
    made = random_integers(kind, 96, 64, seed=9)
    made.scales[::2] = made.scales[::2] * 1e-6  # below what fp16 holds in full
    folder = repacked(written(tmp_path / "its", kind, made), tmp_path / "made")
    _, found = floats(folder, f"{UP}.weight")
    steps = torch.from_numpy(made.codes - 128).abs()
    bound = steps * torch.maximum(made.scales.double() * 2**-11, torch.tensor(2**-25, dtype=torch.float64))
    error = (found - made.weights()).abs()
    assert (error <= bound).all()
    assert error.any()


def test_one_scale_for_all(tmp_path: Path) -> None:
    kind = Kind("bytes", bits=8, group=0)
    made = random_integers(kind, 96, 64, seed=10)
    made.scales[:] = made.scales[0]
    folder = written(tmp_path / "its", kind, made)
    change(folder, {f"{UP}.weight_scale": made.scales[0], f"{UP}.input_scale": torch.ones(1)})
    _, found = floats(repacked(folder, tmp_path / "made"), f"{UP}.weight")
    assert torch.equal(found, made.weights())


def test_a_zero_of_gptq_that_was_stored_as_less_than_nothing(tmp_path: Path) -> None:
    kind = Kind("gptq", symmetric=False)
    made = random_integers(kind, 96, 64, seed=11)
    made.zeros[:] = 0
    folder = repacked(written(tmp_path / "its", kind, made), tmp_path / "made")
    assert torch.equal(floats(folder, f"{UP}.weight")[1], made.weights())


def test_all_else_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "its"
    write_integers(folder, Kind("gptq"))
    (folder / "quantize_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    for layer in ("layers.0", "layers.1"):
        biases = {f"{UP}.bias": torch.zeros(96), f"{DOWN}.bias": torch.ones(64)}
        change(folder, {name.replace("layers.1", layer): bias for name, bias in biases.items()})
    made = repacked(folder, tmp_path / "made")
    before, after = load_file(folder / "model.safetensors"), load_file(made / "model.safetensors")
    assert f"{UP}.bias" not in after  # AutoGPTQ's own, that adds nothing
    kept = [name for name in before if name in after]
    assert f"{DOWN}.bias" in kept
    assert "lm_head.weight" in kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert sorted(path.name for path in made.iterdir()) == sorted(
        ["config.json", "generation_config.json", "llmrun.json", "model.safetensors", "tokenizer.json"]
    )
    config = json.loads((made / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "llmrun", "format": "gptq"}


def test_the_result_is_what_the_plan_was_made_for(tmp_path: Path) -> None:
    folder = tmp_path / "its"
    write_integers(folder, Kind("awq", symmetric=False))
    before, after = read_spec(folder), read_spec(repacked(folder, tmp_path / "made"))
    assert before.folder == f"{REPACKED}{folder}"
    assert not before.is_local
    assert replace(before, name=after.name, folder=after.folder) == after
    assert fingerprint(before) == fingerprint(after)  # so that a plan that was saved before is used


def test_headers_alone_say_what_it_becomes(tmp_path: Path) -> None:
    """On the hub no order of columns is read: in act-order a matrix is then counted as plain numbers."""

    def formats(kind: Kind) -> list[str]:
        folder = tmp_path / kind.layout / str(kind.act_order)
        write_integers(folder, kind)
        data = (folder / "model.safetensors").read_bytes()
        header = data[: 8 + int.from_bytes(data[:8], "little")]
        beginnings = {"config.json": (folder / "config.json").read_bytes(), "model.safetensors": header}
        spec = spec_from_headers(HeadersOnly("hf://a/b", beginnings, {"model.safetensors": len(data)}), name="b")
        return [tensor.dtype for tensor in spec.unit("layer 0").tensors if len(tensor.shape) == 2]

    assert set(formats(Kind("gptq"))) == {"Q4_0"}
    assert set(formats(Kind("packed"))) == {"Q4_0"}
    assert set(formats(Kind("gptq", act_order=True))) == {"F16"}


def test_a_stopped_job_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "its"
    write_integers(folder, Kind("gptq"))
    whole = repacked(folder, tmp_path / "whole", chunk=1 << 20)
    job, source = job_of(folder, tmp_path / "made", shard_bytes=20_000)
    assert len(job.files) > 2
    written_bytes = 0

    def stop_in_the_second_file(nbytes: int) -> None:
        nonlocal written_bytes
        written_bytes += nbytes
        if written_bytes > job.files[0].nbytes:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=f"1 of {len(job.files)} files"):
        run(job, repacking(folder, source, 700), lambda there, all_bytes: stop_in_the_second_file)
    kept = (job.partial / job.files[0].file).stat().st_mtime_ns
    run(job, repacking(folder, source, 700), lambda there, all_bytes: lambda nbytes: None)
    assert (job.target / job.files[0].file).stat().st_mtime_ns == kept
    parts = {n: t for file in job.target.glob("*.safetensors") for n, t in load_file(file).items()}
    assert {n: t.tolist() for n, t in load_file(whole / "model.safetensors").items()} == {
        n: t.tolist() for n, t in parts.items()
    }


def test_memory_for_the_parts_of_the_largest_matrix(tmp_path: Path) -> None:
    folder = tmp_path / "its"
    write_integers(folder, Kind("gptq"))
    largest = max(t.nbytes for name, t in load_file(folder / "model.safetensors").items() if name.endswith("qweight"))
    assert largest < held_bytes(source_of(folder)) < 2 * largest


def test_another_state_of_the_checkpoint_has_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "models--org--Tiny-GPTQ" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    write_integers(folder, Kind("gptq"))
    assert record_of(folder).name == "Tiny-GPTQ-repacked"
    before = target_of(folder)
    assert before == target_of(folder)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert target_of(folder) != before
    assert record_of(tmp_path / "mine").name == "mine-repacked"
