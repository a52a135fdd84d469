"""Making a quantised checkpoint: what each tensor becomes, and jobs that are stopped, disturbed or repeated."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from tiny_model import FAMILIES, save

from llmrun.checkpoint.read import read_spec
from llmrun.checkpoint.recipe import check_source, formats, recipe
from llmrun.checkpoint.spec import ModelSpec
from llmrun.errors import CheckpointError, Interrupted, LlmrunError, PlanError, UsageError
from llmrun.formats import weight_format
from llmrun.kernels.reference import dequantise
from llmrun.quantize.job import Job, run
from llmrun.quantize.memory import chunk_weights
from llmrun.quantize.rounding import quantise
from llmrun.quantize.rounding_job import rounding, rounding_job
from llmrun.units import GIB, MIB

KIB = 1024


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """Rows of 256 weights, 512 in the way down."""
    folder = tmp_path_factory.mktemp("source")
    changes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3}
    return read_spec(save(FAMILIES["llama"].build(**changes), folder, dtype=torch.bfloat16))


def make(spec: ModelSpec, job: Job, wrote=lambda nbytes: None, importance=None, chunk: int = 100_000) -> Path:
    run(job, rounding(spec, importance, chunk), lambda there, whole: wrote)
    return job.target


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_layers_and_head_are_rounded_and_all_else_is_kept(spec: ModelSpec, tmp_path: Path) -> None:
    target = make(spec, rounding_job(spec, recipe("q4"), tmp_path / "made"))
    before, after = weights(Path(spec.folder)), weights(target)
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        if tensor.dtype != torch.uint8:
            assert torch.equal(tensor, before[name])
            assert name == "model.embed_tokens.weight" or tensor.dim() == 1
            continue
        fmt = weight_format("Q6_K" if name == "lm_head.weight" else "Q4_K")
        assert torch.equal(tensor, quantise(fmt, before[name].float()))  # whatever the chunks were
    config = json.loads((target / "config.json").read_text())
    assert config.pop("quantization_config") == {"quant_method": "llmrun", "format": "q4"}
    assert config == json.loads((Path(spec.folder) / "config.json").read_text())


def test_the_result_is_read_as_what_it_is(spec: ModelSpec, tmp_path: Path) -> None:
    made = read_spec(make(spec, rounding_job(spec, recipe("q8"), tmp_path / "made")))
    packed = {tensor.name: tensor for unit in made.units for tensor in unit.tensors if tensor.dtype == "Q8_0"}
    assert len(packed) == 3 * 7 + 1
    assert packed["model.layers.0.mlp.down_proj.weight"].shape == (256, 512)
    with pytest.raises(CheckpointError) as refusal:
        check_source(made)
    assert refusal.value.reference == "already-quantized"


def test_rows_that_are_not_whole_blocks(tmp_path: Path) -> None:
    folder = save(FAMILIES["llama-tied"].build(hidden_size=96, num_attention_heads=3, num_key_value_heads=3), tmp_path)
    spec = read_spec(folder)  # rows of 96 weights, of 48 in the way down
    found = {name: fmt.name for name, fmt in formats(spec, recipe("q4")).items()}
    assert found["model.layers.1.self_attn.q_proj.weight"] == "Q4_1"
    assert found["model.layers.1.mlp.down_proj.weight"] == "F32"
    assert found["model.layers.1.self_attn.q_proj.bias"] == "F32"
    assert found["model.embed_tokens.weight"] == "Q8_0"  # the head, too


def test_a_family_whose_matrices_are_transposed_is_refused(tmp_path: Path) -> None:
    spec = read_spec(save(FAMILIES["gpt2"].build(), tmp_path))
    with pytest.raises(CheckpointError, match="transposed"):
        check_source(spec)


def test_a_format_that_is_not_there() -> None:
    assert recipe("Q5_K").layers.name == "Q5_K"
    for name in ("q3", "bf16", ""):
        with pytest.raises(UsageError) as refusal:
            recipe(name)
        assert refusal.value.reference == "bad-option"


def test_a_stopped_job_goes_on_where_it_was(spec: ModelSpec, tmp_path: Path) -> None:
    whole = make(spec, rounding_job(spec, recipe("q4_0"), tmp_path / "whole", shard_bytes=400 * KIB))
    job = rounding_job(spec, recipe("q4_0"), tmp_path / "made", shard_bytes=400 * KIB)
    files = [shard.file for shard in job.files]
    assert len(files) >= 3
    written = 0

    def stop_in_the_second_file(nbytes: int) -> None:
        nonlocal written
        written += nbytes
        if written > job.files[0].nbytes:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=f"1 of {len(files)} files"):
        make(spec, job, stop_in_the_second_file)
    assert not job.target.exists()
    kept = (job.partial / files[0]).stat().st_mtime_ns
    again: list[int] = []
    make(spec, job, again.append)
    assert (job.target / files[0]).stat().st_mtime_ns == kept
    assert sum(again) < sum(shard.nbytes for shard in job.files[1:])
    assert not job.partial.exists()
    assert {path.name: path.read_bytes() for path in job.target.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_a_file_of_another_length_and_another_job_begin_anew(spec: ModelSpec, tmp_path: Path) -> None:
    job = rounding_job(spec, recipe("q8"), tmp_path / "made", shard_bytes=400 * KIB)
    job.partial.mkdir()
    first = job.partial / job.files[0].file
    (job.partial / ".job.json").write_text(job.made_from)
    first.write_bytes(b"cut off")
    make(spec, job)
    assert first.name in {path.name for path in job.target.iterdir()}
    assert weights(job.target).keys() == weights(Path(spec.folder)).keys()
    other = rounding_job(spec, recipe("q8"), tmp_path / "other", shard_bytes=400 * KIB)
    shutil.copytree(job.target, other.partial)  # right lengths, but of a job that is not known
    (other.partial / other.files[0].file).write_bytes(bytes(other.files[0].nbytes))
    make(spec, other)
    assert all(torch.equal(tensor, weights(job.target)[name]) for name, tensor in weights(other.target).items())


def test_importance_is_asked_for_once(spec: ModelSpec, tmp_path: Path) -> None:
    asked = []

    def importance() -> dict[str, torch.Tensor]:
        asked.append(1)
        return {"model.layers.0.self_attn.q_proj.weight": torch.arange(256).float()}

    def stop(nbytes: int) -> None:
        raise KeyboardInterrupt

    job = rounding_job(spec, recipe("q4"), tmp_path / "made", calibration="a text")
    with pytest.raises(Interrupted):
        make(spec, job, stop, importance)
    made = weights(make(spec, job, importance=importance))
    assert len(asked) == 1
    plain = weights(make(spec, rounding_job(spec, recipe("q4"), tmp_path / "plain")))
    assert [name for name in plain if not torch.equal(plain[name], made[name])] == [*importance()]


def refused(spec: ModelSpec, job: Job, kind: type[LlmrunError], reference: str) -> LlmrunError:
    with pytest.raises(kind) as refusal:
        make(spec, job)
    assert refusal.value.reference == reference
    return refusal.value


def test_what_is_there_is_not_overwritten(spec: ModelSpec, tmp_path: Path) -> None:
    job = rounding_job(spec, recipe("q4"), tmp_path / "made")
    job.target.mkdir()
    (job.target / "mine").touch()
    refused(spec, job, UsageError, "output-exists")
    (job.target / "mine").unlink()
    make(spec, job)  # an empty folder is no loss
    with FileLock(tmp_path / ".partial-other" / ".lock"):
        refused(spec, rounding_job(spec, recipe("q4"), tmp_path / "other"), UsageError, "output-busy")


def test_weights_that_are_no_numbers_are_refused(spec: ModelSpec, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(spec.folder, tmp_path / "broken"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][-1, -1] = torch.inf
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    broken = read_spec(folder)
    error = refused(broken, rounding_job(broken, recipe("q4"), tmp_path / "made"), CheckpointError, "not-finite")
    assert "layers.2.mlp.up_proj" in error.message


def test_a_source_that_became_shorter_is_told(spec: ModelSpec, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(spec.folder, tmp_path / "short"))
    short = read_spec(folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate((folder / "model.safetensors").stat().st_size // 2)
    refused(short, rounding_job(short, recipe("q4"), tmp_path / "made"), CheckpointError, "truncated-shard")


def test_memory_for_a_chunk() -> None:
    assert chunk_weights(8 * GIB, 400 * MIB) == 1 << 23
    assert (1 << 20) < chunk_weights(500 * MIB, 400 * MIB) < 1 << 23
    with pytest.raises(PlanError) as refusal:
        chunk_weights(410 * MIB, 400 * MIB)
    assert refusal.value.reference == "quantize-over-budget"
    needed = int((refusal.value.hint or "").split("MiB")[0].rpartition(" ")[2])
    chunk_weights(needed * MIB, 400 * MIB)
    with pytest.raises(PlanError, match="does not fit") as refusal:
        chunk_weights(1 * GIB, 400 * MIB, calibration_bytes=2 * GIB)
    assert "leave out `--calibrate`" in (refusal.value.hint or "")


def test_dequantised_it_is_near_the_original(spec: ModelSpec, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.gate_proj.weight"
    made = weights(make(spec, rounding_job(spec, recipe("q4"), tmp_path / "made")))[name]
    before = weights(Path(spec.folder))[name].float()
    assert (dequantise(weight_format("Q4_K"), made, 256) - before).norm() < 0.075 * before.norm()
