"""Packed matrices as data: llmrun's own layout in safetensors, what is counted of it, what others have quantised."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoint import header_of, llama_tensors, shard_bytes, write_checkpoint, write_config

from llmrun.checkpoint import ModelSpec, TensorSpec, read_spec
from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.errors import CheckpointError
from llmrun.formats import FORMATS

UP = "model.layers.{}.mlp.up_proj.weight"
QKV = "model.layers.{}.self_attn.qkv.weight"
OURS = {"quant_method": "llmrun", "format": "q4"}


def write_packed(
    folder: Path, formats: Any, *, changed: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> Path:
    """Two layers whose matrices are Q8_0 (12, 64) and Q4_K (16, 512); ``formats`` stands in the header."""
    tensors = llama_tensors()
    for layer in range(2):
        tensors |= {UP.format(layer): ("U8", (12, 2 * 34)), QKV.format(layer): ("U8", (16, 2 * 144))}
    header = header_of(tensors | (changed or {}))
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    header["__metadata__"]["llmrun.formats"] = formats
    write_config(folder, quantization_config=OURS, **(config or {}))
    (folder / "model.safetensors").write_bytes(shard_bytes(json.dumps(header).encode(), end))
    return folder


def named(**more: object) -> str:
    formats = {UP.format(n): "Q8_0" for n in range(2)} | {QKV.format(n): "Q4_K" for n in range(2)}
    return json.dumps(formats | more)


def tensor(spec: ModelSpec, name: str) -> TensorSpec:
    return next(one for unit in spec.units for one in unit.tensors if one.name == name)


def test_a_packed_matrix_is_read_as_the_weights_it_holds(tmp_path: Path) -> None:
    spec = read_spec(write_packed(tmp_path, named()))

    up = tensor(spec, UP.format(1))
    assert (up.dtype, up.shape, up.nbytes) == ("Q8_0", (12, 64), 12 * 68)
    qkv = tensor(spec, QKV.format(0))
    assert (qkv.dtype, qkv.shape, qkv.nbytes) == ("Q4_K", (16, 512), 16 * 288)
    for one in (up, qkv):
        assert one.nbytes == one.shape[0] * FORMATS[one.dtype].row_bytes(one.shape[1])
    layer = spec.unit("layer 0")
    assert layer.flops_per_token == 2 * (12 * 64 + 16 * 512)
    assert layer.nbytes == 12 * 68 + 16 * 288 + 2 * 8
    assert spec.n_params == 2 * (12 * 64 + 16 * 512 + 8) + 2 * 20 * 8 + 8


def test_the_model_says_which_formats_it_has(tmp_path: Path) -> None:
    packed = read_spec(write_packed(tmp_path, named()))
    plain = read_spec(write_checkpoint(tmp_path / "plain"))

    assert packed.weight_formats == {"Q4_K": 2 * 16 * 288, "Q8_0": 2 * 12 * 68, "BF16": 2 * (2 * 20 * 8 + 2 * 8 + 8)}
    assert list(packed.weight_formats) == ["Q4_K", "Q8_0", "BF16"]
    assert sum(packed.weight_formats.values()) == packed.nbytes
    assert packed.layer_shape == "llama 8 x 12, 2/1 heads of 4, BF16, Q4_K+Q8_0"
    assert plain.weight_formats == {"BF16": plain.nbytes}
    assert plain.layer_shape == "llama 8 x 12, 2/1 heads of 4, BF16"


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({}, "BF16"),
        ({"dtype": "float16"}, "F16"),
        ({"torch_dtype": "torch.float32"}, "F32"),
        ({"dtype": "auto"}, "BF16"),
        ({"dtype": ["float16"]}, "BF16"),
    ],
)
def test_where_the_layers_are_packed_config_says_what_is_computed_in(
    tmp_path: Path, config: dict[str, Any], dtype: str
) -> None:
    spec = read_spec(write_packed(tmp_path, named(), config=config))
    assert spec.dtype == dtype
    assert spec.kv_bytes_per_token == 2 * 2 * 4 * FORMATS[dtype].block_bytes


def test_a_fingerprint_tells_formats_apart_and_not_places(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        write_packed(folder, named())
    other = json.dumps(json.loads(named()) | {UP.format(0): "Q4_K"})
    changed = {UP.format(0): ("U8", (12, 144))}
    assert fingerprint(read_spec(here)) == fingerprint(read_spec(there))
    assert fingerprint(read_spec(here)) != fingerprint(read_spec(write_packed(there, other, changed=changed)))


NOT_THERE = "model.layers.9.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("formats", "changed", "reference", "words"),
    [
        (named(**{UP.format(0): "Q2_K"}), {}, "unsupported-format", "packed as 'Q2_K'"),
        (named(**{UP.format(0): "BF16"}), {}, "unsupported-format", "packed as 'BF16'"),
        (named(**{UP.format(0): 8}), {}, "unsupported-format", "packed as 8"),
        (named(**{NOT_THERE: "Q8_0"}), {}, "broken-header", f"names '{NOT_THERE}', which it does not hold"),
        (named(), {UP.format(0): ("U8", (12, 69))}, "broken-header", "12 rows of 69 bytes, and a block of Q8_0 has 34"),
        (named(), {UP.format(0): ("U8", (0, 68))}, "broken-header", "0 rows of 68 bytes"),
        (named(), {UP.format(0): ("U8", (12, 0))}, "broken-header", "12 rows of 0 bytes"),
        (named(), {UP.format(0): ("U8", (68,))}, "broken-header", "Q8_0 needs U8 (rows, bytes)"),
        (named(), {UP.format(0): ("BF16", (12, 34))}, "broken-header", "BF16 (12, 34), Q8_0 needs U8"),
        (3, {}, "broken-header", "llmrun.formats is not a text"),
        ("{", {}, "broken-header", "not valid JSON"),
        ("[]", {}, "broken-header", "not a JSON object"),
        ('{"a": "Q8_0", "a": "Q4_0"}', {}, "broken-header", "'a' occurs twice"),
        ("\ud800", {}, "broken-header", "not valid JSON"),
        (" " * (16 * 2**20 + 1), {}, "broken-header", "longer than 16.0 MiB"),
    ],
)
def test_what_the_header_says_must_fit_the_bytes(
    tmp_path: Path, formats: Any, changed: dict[str, Any], reference: str, words: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_spec(write_packed(tmp_path, formats, changed=changed))
    assert (caught.value.reference, "model.safetensors" in caught.value.message) == (reference, True)
    assert words in caught.value.message


def test_bytes_that_nothing_describes_are_refused(tmp_path: Path) -> None:
    formats = json.loads(named())
    del formats[UP.format(1)]
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight' is U8, and nothing says") as caught:
        read_spec(write_packed(tmp_path, json.dumps(formats)))
    assert caught.value.reference == "unsupported-format"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "(gptq, 3 bits, groups of 128)"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "in the formats gptq and gptq_v2"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "version": "gemv"}, "(awq, 4 bits, groups of 64)"),
        (
            {"quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [128, 128]},
            "blocks of [128, 128]), which llmrun",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 2, "group_size": 128}}},
            },
            "(compressed-tensors, pack-quantized, 2 bits, groups of 128), which llmrun cannot read yet: it reads 4",
        ),
        (
            {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": []},
            "8-bit floats, the same for all matrices",
        ),
        ({"quant_method": "of tomorrow"}, "(of tomorrow), which llmrun cannot read yet"),
        ({"quant_method": {"a": 1}, "format": 3}, "{'a': 1}"),
        ({"bits": 4}, "(unnamed, 4 bits)"),
        ("yes", "(unnamed)"),
    ],
)
def test_what_others_have_quantised_is_refused_with_what_is_missing(tmp_path: Path, said: object, words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_spec(write_checkpoint(tmp_path, quantization_config=said))
    assert caught.value.reference == "unsupported-format"
    assert words in caught.value.message
