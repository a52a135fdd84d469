import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoint import HIDDEN, llama_tensors, shard_bytes, write_checkpoint, write_sharded

from llmrun.checkpoint import read_spec
from llmrun.errors import CheckpointError


def refusal(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_spec(folder)
    return caught.value


@pytest.mark.parametrize(
    ("changes", "reference", "words"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 2}}, "unsupported-format", "gptq"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "unsupported-format", "mxfp4"),
        ({"num_local_experts": 8}, "unsupported-format", "num_local_experts is 8"),
        ({"is_encoder_decoder": True}, "unsupported-architecture", "encoder-decoder"),
        ({"layer_types": ["linear_attention"] * 2}, "unsupported-architecture", "linear_attention"),
        ({"mamba_d_state": 16}, "unsupported-architecture", "mamba_d_state"),
        ({"kv_lora_rank": 512}, "unsupported-architecture", "kv_lora_rank"),
        ({"vision_config": {}}, "unsupported-architecture", "multimodal"),
        ({"architectures": ...}, "unsupported-architecture", "names no architectures"),
        ({"architectures": ["BertForMaskedLM"]}, "unsupported-architecture", "BertForMaskedLM"),
        ({"model_type": ...}, "unsupported-architecture", "model_type"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "x.Y"}}, "remote-code", "Python code"),
        ({"hidden_size": ...}, "broken-config", "hidden_size is None"),
        ({"hidden_size": -8}, "broken-config", "hidden_size is -8"),
        ({"num_hidden_layers": "two"}, "broken-config", "num_hidden_layers is 'two'"),
        ({"num_hidden_layers": 2**39}, "missing-tensor", "model.layers.2"),
        ({"num_hidden_layers": 1}, "broken-config", "model.layers.1"),
        ({"vocab_size": 21}, "broken-config", "vocabulary of 21"),
        ({"sliding_window": -1, "layer_types": ["full_attention"] * 2}, "broken-config", "sliding_window"),
        ({"layer_types": ["full_attention"]}, "broken-config", "layer_types"),
    ],
)
def test_a_config_that_cannot_run_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], reference: str, words: str
) -> None:
    error = refusal(write_checkpoint(tmp_path, **changes))
    assert error.reference == reference
    assert words in error.message
    assert error.exit_code == 4


def test_what_cannot_run_is_refused_before_any_weight_file_is_opened(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, quantization_config={"quant_method": "awq", "bits": 8})
    (folder / "model.safetensors").write_bytes(b"junk")
    assert refusal(folder).reference == "unsupported-format"


@pytest.mark.parametrize(
    ("name", "dtype", "reference"),
    [
        ("model.layers.0.mlp.up_proj.weight", "F8_E5M2", "unsupported-format"),
        ("model.layers.0.mlp.up_proj.weight", "I32", "unsupported-format"),
        ("model.layers.0.mlp.up_proj.weight", "F64", "wrong-dtype"),
        ("model.layers.0.mlp.experts.0.weight", "BF16", "unsupported-format"),
        ("language_model.model.norm.weight", "BF16", "unsupported-architecture"),
    ],
)
def test_tensors_that_cannot_run_are_refused_by_name(tmp_path: Path, name: str, dtype: str, reference: str) -> None:
    error = refusal(write_checkpoint(tmp_path, llama_tensors() | {name: (dtype, (HIDDEN,))}))
    assert error.reference == reference
    assert name in error.message or "multimodal" in error.message


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("model.layers.1.mlp.up_proj.weight", "layer 1 lacks 'mlp.up_proj.weight'"),
        ("lm_head.weight", "no head"),
        ("model.embed_tokens.weight", "no embedding"),
    ],
)
def test_a_tensor_that_must_be_there_is_named(tmp_path: Path, absent: str, words: str) -> None:
    tensors = llama_tensors()
    del tensors[absent]
    error = refusal(write_checkpoint(tmp_path, tensors))
    assert error.reference == "missing-tensor"
    assert words in error.message


def truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 100)


def replace(data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors").write_bytes(data) and None


def header(entries: object, data_nbytes: int = 64) -> Callable[[Path], None]:
    return replace(shard_bytes(json.dumps(entries).encode(), data_nbytes))


def tensor(**changes: object) -> dict[str, object]:
    return {"t": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]} | changes}


@pytest.mark.parametrize(
    ("spoil", "reference", "words"),
    [
        (truncate, "truncated-shard", "100 B are missing"),
        (replace(b"\1\2\3"), "truncated-shard", "3 bytes long"),
        (replace(b"\xff" * 64), "broken-header", "18,446,744,073,709,551,615"),
        (replace((99_000_000).to_bytes(8, "little") + b"{}"), "broken-header", "10 bytes long"),
        (replace(shard_bytes(b"{broken", 0)), "broken-header", "not valid JSON"),
        (replace(shard_bytes(b"[" * 200_000, 0)), "broken-header", "nested"),
        (replace(shard_bytes(b'{"a":1,"a":2}', 0)), "broken-header", "'a' occurs twice"),
        (header([1]), "broken-header", "not a JSON object"),
        (header({"t": 3}), "broken-header", "'t' is not an object"),
        (header(tensor(dtype="BANANA")), "broken-header", "BANANA"),
        (header(tensor(shape=[2**60, 2**60])), "broken-header", "offsets span 64"),
        (header(tensor(shape=[-16])), "broken-header", "impossible shape"),
        (header(tensor(shape=[1] * 99)), "broken-header", "impossible shape"),
        (header(tensor(shape=[True])), "broken-header", "impossible shape"),
        (header(tensor(data_offsets=[-64, 0])), "broken-header", "impossible offsets"),
        (header(tensor(data_offsets=[64, 0])), "broken-header", "impossible offsets"),
        (header(tensor(data_offsets=[0])), "broken-header", "impossible offsets"),
        (header(tensor(shape=[15])), "broken-header", "60 bytes, but its offsets span 64"),
        (header(tensor(shape=[15], data_offsets=[4, 64])), "broken-header", "hole"),
        (
            header(tensor() | {"u": {"dtype": "U8", "shape": [9], "data_offsets": [60, 69]}}, 69),
            "broken-header",
            "over",
        ),
        (header(tensor(), 70), "broken-header", "6 bytes follow"),
        (header(tensor() | {"__metadata__": 3}), "broken-header", "__metadata__"),
    ],
)
def test_a_broken_shard_is_told_with_file_and_numbers(
    tmp_path: Path, spoil: Callable[[Path], None], reference: str, words: str
) -> None:
    folder = write_checkpoint(tmp_path)
    spoil(folder)
    error = refusal(folder)
    assert error.reference == reference
    assert "model.safetensors" in error.message
    assert words in error.message


def test_a_shard_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path, {"a.safetensors": llama_tensors()})
    (folder / "a.safetensors").unlink()
    error = refusal(folder)
    assert (error.reference, "a.safetensors" in error.message) == ("missing-shard", True)


def test_a_tensor_that_the_index_names_must_be_in_its_shard(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path, {"a.safetensors": llama_tensors()})
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.extra.weight"] = "a.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    error = refusal(folder)
    assert (error.reference, "model.extra.weight" in error.message) == ("missing-tensor", True)


@pytest.mark.parametrize(
    "index",
    ["{", "[]", "{}", '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../x.safetensors"}}',
     '{"weight_map": {"a": "/etc/x.safetensors"}}', '{"weight_map": {"a": "x\\u0000.safetensors"}}'],
)  # fmt: skip
def test_a_broken_index_is_refused(tmp_path: Path, index: str) -> None:
    folder = write_sharded(tmp_path, {"a.safetensors": llama_tensors()})
    (folder / "model.safetensors.index.json").write_text(index)
    assert refusal(folder).reference == "broken-index"


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path, {"a.safetensors": llama_tensors(), "b.safetensors": llama_tensors(1)})
    assert refusal(folder).reference == "broken-index"


def test_pickles_are_refused_with_a_hint(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refusal(folder)
    assert error.reference == "pickle-checkpoint"
    assert "save_pretrained" in (error.hint or "")


@pytest.mark.parametrize(("file", "reference"), [("model.safetensors", "no-weights"), ("config.json", "no-config")])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, file: str, reference: str) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / file).unlink()
    assert refusal(folder).reference == reference


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[]", b'{"n": ' + b"9" * 5000 + b"}", b'{"a":' * 100_000])
def test_a_broken_config_is_refused(tmp_path: Path, text: bytes) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / "config.json").write_bytes(text)
    assert refusal(folder).reference == "broken-config"


def test_what_cannot_be_read_is_unreadable(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").reference == "unreadable"
    folder = write_checkpoint(tmp_path / "pipe")
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")  # opening it must not wait for a writer
    assert refusal(folder).reference == "unreadable"
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert refusal(folder).reference == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_the_right_to_read_it_is_unreadable(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / "model.safetensors").chmod(0)
    assert refusal(folder).reference == "unreadable"
