"""Integers of others that contradict each other, or that are not read: refused by name, before anything is made."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from integer_checkpoints import Kind, change, repacked, write_integers
from tiny_checkpoint import write_checkpoint

from llmrun.checkpoint.read import read_spec
from llmrun.errors import CheckpointError

UP = "model.layers.1.mlp.up_proj"

BAD = {
    "no scales": (Kind("gptq"), {f"{UP}.scales": None}, "missing-tensor", "no scales beside it"),
    "no zeros": (Kind("awq", symmetric=False), {f"{UP}.qzeros": None}, "missing-tensor", "no zeros beside it"),
    "no zeros, packed": (
        Kind("packed", symmetric=False),
        {f"{UP}.weight_zero_point": None},
        "missing-tensor",
        "no zeros beside it",
    ),
    "scales of other groups": (
        Kind("gptq"),
        {f"{UP}.scales": torch.ones(3, 96).half()},
        "broken-quantized",
        "has to be F16/BF16/F32 (2, 96)",
    ),
    "scales that are integers": (
        Kind("packed"),
        {f"{UP}.weight_scale": torch.ones(96, 2).int()},
        "broken-quantized",
        "is I32 (96, 2)",
    ),
    "zeros cut short": (
        Kind("awq", symmetric=False),
        {f"{UP}.qzeros": torch.zeros(2, 11).int()},
        "broken-quantized",
        "has to be I32 (2, 12)",
    ),
    "integers of another width": (
        Kind("packed"),
        {f"{UP}.weight_packed": torch.zeros(96, 8).long()},
        "broken-quantized",
        "is I64 (96, 8), not a matrix of I32",
    ),
    "integers in a row": (
        Kind("gptq"),
        {f"{UP}.qweight": torch.zeros(96 * 8).int()},
        "broken-quantized",
        "not a matrix",
    ),
    "another shape": (
        Kind("packed"),
        {f"{UP}.weight_shape": torch.tensor([96, 63])},
        "broken-quantized",
        "says [96, 63]",
    ),
    "scales that are no exponents": (
        Kind("mxfp4"),
        {f"{UP}.weight_scale": torch.ones(96, 2).half()},
        "broken-quantized",
        "has to be U8 (96, 2)",
    ),
    "halves of another width": (
        Kind("mxfp4"),
        {f"{UP}.weight_packed": torch.zeros(96, 32).int()},
        "broken-quantized",
        "not a matrix of U8",
    ),
    "a shape of floats": (Kind("packed"), {f"{UP}.weight_shape": torch.ones(2)}, "broken-quantized", "is F32"),
    "groups that do not divide": (
        replace(Kind("awq", symmetric=False), group=40),
        {},
        "broken-quantized",
        "no multiple of 40",
    ),
    "a group that is not there": (
        Kind("gptq"),
        {f"{UP}.g_idx": torch.arange(64).int() // 16},
        "broken-quantized",
        "puts columns into groups 0 to 3, and there are 2",
    ),
    "a group below the first": (
        Kind("gptq"),
        {f"{UP}.g_idx": torch.arange(64).int() // 32 - 1},
        "broken-quantized",
        "groups -1 to 0",
    ),
    "an order of fewer columns": (
        Kind("gptq"),
        {f"{UP}.g_idx": torch.zeros(32).int()},
        "broken-quantized",
        "has to be I32/I64 (64,)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_parts_that_contradict_each_other_are_refused_before_anything_is_made(case: str, tmp_path: Path) -> None:
    kind, changes, reference, words = BAD[case]
    write_integers(tmp_path, kind)
    change(tmp_path, changes)
    with pytest.raises(CheckpointError) as caught:
        read_spec(tmp_path)
    assert caught.value.reference == reference
    assert words in caught.value.message


def test_nothing_that_config_json_says_is_there(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, quantization_config=Kind("gptq").config())
    with pytest.raises(CheckpointError, match=r"no tensor is called \*\.qweight"):
        read_spec(tmp_path)


def test_a_family_whose_matrices_are_transposed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, quantization_config=Kind("gptq").config(), model_type="gpt2")
    with pytest.raises(CheckpointError, match=r"gpt2.* stores its matrices transposed"):
        read_spec(tmp_path)


@pytest.mark.parametrize(
    ("kind", "changes", "reference"),
    [
        (Kind("gptq"), {f"{UP}.qzeros": torch.zeros(2, 12).int()}, "broken-quantized"),  # said to be symmetric
        (Kind("gptq"), {f"{UP}.scales": torch.full((2, 96), torch.nan).half()}, "not-finite"),
        (Kind("packed"), {f"{UP}.weight_scale": torch.full((96, 2), 1e6).bfloat16()}, "not-finite"),
        (Kind("mxfp4"), {f"{UP}.weight_scale": torch.full((96, 2), 255).byte()}, "not-finite"),
        (Kind("mxfp4"), {f"{UP}.weight_scale": torch.full((96, 2), 144).byte()}, "not-finite"),
    ],
)
def test_numbers_that_cannot_be(kind: Kind, changes: dict[str, torch.Tensor], reference: str, tmp_path: Path) -> None:
    write_integers(tmp_path / "its", kind)
    change(tmp_path / "its", changes)
    with pytest.raises(CheckpointError) as caught:
        repacked(tmp_path / "its", tmp_path / "made")
    assert caught.value.reference == reference
    assert UP in caught.value.message
    assert not (tmp_path / "made").exists()


SAID = Kind("packed").config()


@pytest.mark.parametrize(
    "said",
    [
        Kind("gptq", bits=3).config(),
        Kind("gptq").config() | {"checkpoint_format": "marlin"},
        Kind("gptq").config() | {"is_marlin_format": True},
        Kind("gptq").config() | {"group_size": 0},
        Kind("gptq").config() | {"group_size": "large"},
        Kind("gptq").config() | {"bits": [4]},
        Kind("awq").config() | {"version": "gemv"},
        Kind("awq").config() | {"bits": 8},
        SAID | {"format": "marlin-24"},
        SAID | {"config_groups": {}},
        SAID | {"config_groups": [1]},
        SAID | {"config_groups": {"group_0": {"weights": None}}},
        SAID | {"sparsity_config": {"format": "sparse-24-bitmask"}},
        SAID | {"transform_config": {"config_groups": {"u": {"type": "hadamard"}}}},
        SAID | {"config_groups": {"a": SAID["config_groups"]["group_0"], "b": {"weights": {"num_bits": 8}}}},
        Kind("packed", bits=2).config(),
        Kind("mxfp4", bits=8).config(),
        Kind("mxfp4", group=16).config(),
        Kind("mxfp4", symmetric=False).config(),
    ],
    ids=str,
)
def test_variants_that_are_not_read_are_refused_by_name(said: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"quantised .{said['quant_method']}.*cannot read yet") as caught:
        read_spec(write_checkpoint(tmp_path, quantization_config=said))
    assert caught.value.reference == "unsupported-format"
