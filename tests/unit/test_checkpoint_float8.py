"""Checkpoints in 8-bit floats: what their config.json may say, and scales that do not fit."""

from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoint import HIDDEN, INTERMEDIATE, llama_tensors, write_checkpoint

from llmrun.checkpoint import read_spec
from llmrun.checkpoint.float8 import Float8, float8_of
from llmrun.checkpoint.spec import ModelSpec, ScaleBlocks
from llmrun.errors import CheckpointError

FP8 = {"quant_method": "fp8", "weight_block_size": [8, 4]}
UP = "model.layers.1.mlp.up_proj.weight"


def compressed(weights: object, **said: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"weights": weights}},
    } | said


def read(
    folder: Path, said: object = FP8, scales: object = ("F32", (2, 2)), suffix: str = "_scale_inv", **more: Any
) -> ModelSpec:
    """A tiny Llama whose up projections are F8_E4M3, each with ``scales`` (dtype and shape) beside it."""
    tensors = llama_tensors()
    for layer in range(2):
        name = UP.replace("1", str(layer))
        tensors[name] = ("F8_E4M3", (INTERMEDIATE, HIDDEN))
        if scales:
            tensors[name + suffix] = scales
    return read_spec(write_checkpoint(folder, tensors | more, quantization_config=said))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (FP8, Float8((8, 4))),
        ({"quant_method": "fp8"}, Float8(None)),
        ({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": None}, Float8(None)),
        ({"quant_method": "fp8", "fmt": "e5m2"}, None),
        ({"quant_method": "fbgemm_fp8"}, Float8(None)),
        (compressed({"type": "float", "num_bits": 8, "strategy": "channel"}), Float8(None)),
        (compressed({"type": "float", "num_bits": 8, "strategy": "tensor"}, format="naive-quantized"), Float8(None)),
        (
            compressed({"type": "float", "num_bits": 8, "strategy": "block", "block_structure": [128, 64]}),
            Float8((128, 64)),
        ),
        (compressed({"type": "float", "num_bits": 8, "strategy": "group", "group_size": 32}), Float8((1, 32))),
        (compressed({"type": "float", "num_bits": 8, "strategy": "attn_head"}), None),
        (compressed({"type": "float", "num_bits": 4}), None),
        (compressed({"type": "int", "num_bits": 8}), None),
        (compressed(None), None),
        (compressed({"type": "float", "num_bits": 8}, config_groups=[]), None),
        (compressed({"type": "float", "num_bits": 8}, format="nvfp4-pack-quantized"), None),
        (compressed({"type": "float", "num_bits": 8}, sparsity_config={"format": "sparse-24"}), None),
        (compressed({"type": "float", "num_bits": 8}, transform_config={"config_groups": {"u": {}}}), None),
        ({"quant_method": "gptq"}, None),
        ("fp8", None),
        (None, None),
    ],
)
def test_what_config_json_says(said: object, expected: Float8 | None) -> None:
    assert float8_of(said) == expected


@pytest.mark.parametrize("size", [[128], [0, 128], [-1, 128], [1.5, 2], "128", [128, 128, 128], [True, 128], {}])
def test_blocks_that_cannot_be_are_refused(size: object) -> None:
    with pytest.raises(CheckpointError, match="rows and columns of a block") as caught:
        float8_of({"quant_method": "fp8", "weight_block_size": size})
    assert caught.value.reference == "broken-config"


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        (("F32", (2, 2)), (8, 4)),
        (("BF16", (2, 2)), (8, 4)),
        (("F32", (12, 1)), (1, HIDDEN)),
        (("F16", (12,)), (1, HIDDEN)),
        (("F32", ()), (INTERMEDIATE, HIDDEN)),
        (("F32", (1,)), (INTERMEDIATE, HIDDEN)),
        (("F32", (1, 1)), (INTERMEDIATE, HIDDEN)),
    ],
)
@pytest.mark.parametrize("suffix", ["_scale_inv", "_scale"])
def test_the_shape_of_scales_says_whose_they_are(
    tmp_path: Path, scales: Any, expected: tuple[int, int], suffix: str
) -> None:
    spec = read(tmp_path, scales=scales, suffix=suffix)
    layer = spec.unit("layer 1")
    matrix = next(tensor for tensor in layer.parameters if tensor.name == UP)
    assert matrix.scales == ScaleBlocks(UP + suffix, *expected)
    assert {tensor.name for tensor in layer.tensors} - {tensor.name for tensor in layer.parameters} == {UP + suffix}
    plain = read_spec(write_checkpoint(tmp_path / "plain"))
    assert (spec.n_params, spec.flops_per_token, spec.dtype) == (plain.n_params, plain.flops_per_token, "BF16")
    assert spec.layer_shape.endswith("BF16, BF16+F8_E4M3")


def test_an_absurd_block_is_all_of_the_matrix(tmp_path: Path) -> None:
    spec = read(tmp_path, FP8 | {"weight_block_size": [2**62, 4]}, ("F32", (1, 2)))
    assert spec.unit("layer 0").parameters[1].scales == ScaleBlocks(
        UP.replace("1", "0") + "_scale_inv", INTERMEDIATE, 4
    )


def test_scales_of_activations_and_of_the_cache_are_of_no_use(tmp_path: Path) -> None:
    more = {f"model.layers.{n}.self_attn.{what}_scale": ("F32", (1,)) for n in range(2) for what in ("k", "v")}
    more |= {f"model.layers.{n}.mlp.up_proj.input_scale": ("F32", (1,)) for n in range(2)}
    assert read(tmp_path / "more", **more).n_params == read(tmp_path).n_params


def test_without_scales_and_without_a_word_the_floats_are_the_weights(tmp_path: Path) -> None:
    spec = read(tmp_path, ..., None)
    assert [tensor.scales for tensor in spec.unit("layer 0").tensors] == [None] * 3
    assert spec.dtype == "BF16"


def test_scales_of_the_head_are_in_its_unit(tmp_path: Path) -> None:
    more = {"lm_head.weight": ("F8_E4M3", (20, HIDDEN)), "lm_head.weight_scale_inv": ("F32", (3, 2))}
    head = read(tmp_path, **more).unit("head")
    assert [tensor.name for tensor in head.parameters] == ["lm_head.weight"]
    assert len(head.tensors) == 2


@pytest.mark.parametrize(
    ("said", "scales", "reference", "words"),
    [
        (FP8, None, "missing-tensor", "has no scales beside it"),
        (FP8, ("F32", (2, 3)), "broken-quantized", "in blocks of 8 x 4"),
        (FP8, ("F32", (1, 2)), "broken-quantized", r"\[1, 2\]"),
        (FP8, ("F32", (4,)), "broken-quantized", r"\[4\]"),
        (FP8, ("F32", (2, 2, 1)), "broken-quantized", r"\[2, 2, 1\]"),
        (FP8, ("F32", (0, 2)), "broken-quantized", r"\[0, 2\]"),
        (FP8, ("U8", (2, 2)), "broken-quantized", "is U8; scales are F32, BF16, F16"),
        ({"quant_method": "fp8"}, ("F32", (2, 2)), "broken-quantized", r"\[12, 8\]"),
        (..., ("F32", (2, 2)), "unsupported-format", "does not say how it is quantised"),
        (FP8 | {"weight_block_size": [8, 0]}, ("F32", (2, 2)), "broken-config", "block of weights"),
    ],
)
def test_scales_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, said: object, scales: Any, reference: str, words: str
) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        read(tmp_path, said, scales)
    assert caught.value.reference == reference


def test_scales_of_what_is_no_matrix_are_refused(tmp_path: Path) -> None:
    more = {f"model.layers.{n}.input_layernorm.weight": ("F8_E4M3", (HIDDEN,)) for n in range(2)}
    more |= {f"model.layers.{n}.input_layernorm.weight_scale_inv": ("F32", (1,)) for n in range(2)}
    with pytest.raises(CheckpointError, match="of no matrix"):
        read(tmp_path, **more)


def test_an_embedding_with_scales_is_refused(tmp_path: Path) -> None:
    more = {"model.embed_tokens.weight": ("F8_E4M3", (20, HIDDEN)), "model.embed_tokens.weight_scale": ("F32", (20, 1))}
    with pytest.raises(CheckpointError, match="embed_tokens") as caught:
        read(tmp_path, **more)
    assert caught.value.reference == "unsupported-format"
