"""The table of weight formats: the same numbers and sizes as ggml's own."""

import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from llmrun.formats import FORMATS, NOT_GGMLS, WeightFormat, weight_format

GGMLS = [fmt for fmt in FORMATS.values() if fmt.number < NOT_GGMLS]


@pytest.mark.parametrize("fmt", GGMLS, ids=lambda fmt: fmt.name)
def test_number_and_block_are_ggmls(fmt: WeightFormat) -> None:
    kind = GGMLQuantizationType[fmt.name]
    assert fmt.number == kind
    assert (fmt.block_weights, fmt.block_bytes) == GGML_QUANT_SIZES[kind]


def test_a_row_is_made_of_whole_blocks() -> None:
    assert weight_format("Q4_K").row_bytes(512) == 288
    assert weight_format("BF16").row_bytes(7) == 14
    with pytest.raises(ValueError, match="300 weights"):
        weight_format("Q4_K").row_bytes(300)
    with pytest.raises(ValueError, match="0 weights"):
        weight_format("Q8_0").row_bytes(0)


def test_what_a_weight_takes() -> None:
    bits = {name: fmt.bits_per_weight for name, fmt in FORMATS.items() if not fmt.is_plain}
    assert bits == {
        "Q8_0": 8.5,
        "Q4_0": 4.5,
        "Q4_1": 5.0,
        "Q5_0": 5.5,
        "Q5_1": 6.0,
        "Q4_K": 4.5,
        "Q5_K": 5.5,
        "Q6_K": 6.5625,
    }


def test_eight_bit_floats_are_plain_but_no_model_computes_in_them() -> None:
    assert [name for name, fmt in FORMATS.items() if fmt.is_plain] == ["F32", "F16", "BF16", "F8_E4M3"]
    assert [name for name, fmt in FORMATS.items() if fmt.is_computed_in] == ["F32", "F16", "BF16"]
    assert weight_format("F8_E4M3").row_bytes(7) == 7


def test_an_unknown_format_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        weight_format("IQ1_S")
