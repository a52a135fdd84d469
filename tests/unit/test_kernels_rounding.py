"""Rounding in C against torch's search, over shapes, threads and formats."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_weights import VARIANTS, library_of

from llmrun.formats import FORMATS, WeightFormat
from llmrun.kernels.library import find_library
from llmrun.kernels.linear import Kernels
from llmrun.kernels.multiply import plain
from llmrun.kernels.reference import PLAIN_DTYPES, dequantise
from llmrun.quantize.rounding import quantise_by_torch

pytestmark = pytest.mark.skipif(find_library() is None, reason="the kernels were not built")
PLAIN = [PLAIN_DTYPES[fmt.name] for fmt in FORMATS.values() if fmt.is_computed_in]
BLOCKED = [fmt for fmt in FORMATS.values() if fmt.block_weights > 1]


@pytest.fixture(scope="module")
def kernels():
    made = [Kernels(find_library(), threads) for threads in (1, 3)]
    yield made
    for each in made:
        each.close()


def rounded(
    own: Kernels, weights: torch.Tensor, fmt: WeightFormat, importance: torch.Tensor | None = None
) -> torch.Tensor:
    name = next(name for name, dtype in PLAIN_DTYPES.items() if dtype == weights.dtype)
    return own.rounded(weights.view(torch.uint8), FORMATS[name], weights.shape[1], fmt, importance=importance)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(BLOCKED), st.sampled_from(PLAIN), st.integers(1, 5), st.integers(1, 19),
    st.integers(0, 2**31), st.floats(1e-6, 100.0),
)  # fmt: skip
def test_as_little_is_lost_as_by_torch_with_any_number_of_threads(kernels, fmt, dtype, rows, blocks, seed, scale):
    columns = blocks * fmt.block_weights
    weights = (torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)
    one, three = (rounded(own, weights, fmt) for own in kernels)
    assert torch.equal(one, three)
    by_torch = quantise_by_torch(fmt, weights)
    lost, theirs = ((dequantise(fmt, made, columns) - weights.float()).square().sum() for made in (one, by_torch))
    assert lost <= theirs * 1.01 + 1e-30


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(BLOCKED), st.sampled_from(PLAIN), st.integers(1, 5), st.integers(1, 19),
    st.integers(0, 2**31), st.floats(0.0, 2.0),
)  # fmt: skip
def test_what_matters_loses_as_little_as_by_torch(kernels, fmt, dtype, rows, blocks, seed, spread):
    columns, generator = blocks * fmt.block_weights, torch.Generator().manual_seed(seed)
    weights = torch.randn(rows, columns, generator=generator).to(dtype)
    importance = torch.randn(columns, generator=generator).mul(spread).exp()
    one, three = (rounded(own, weights, fmt, importance) for own in kernels)
    assert torch.equal(one, three)
    by_torch = quantise_by_torch(fmt, weights, importance)
    lost, theirs = (
        ((dequantise(fmt, made, columns) - weights.float()).square() * importance).sum() for made in (one, by_torch)
    )
    assert lost <= theirs * 1.05 + 1e-30  # of a few rows: now the one is luckier, now the other


def test_columns_that_count_alike_are_as_without_importance(kernels):
    weights = torch.randn(4, 1280, generator=torch.Generator().manual_seed(0))
    for fmt in BLOCKED:
        alike = rounded(kernels[0], weights, fmt, torch.ones(1280))
        same = (alike == rounded(kernels[0], weights, fmt)).float().mean()
        assert same > 0.99  # sums of floats come out a little different


def test_importance_of_other_columns_is_refused(kernels):
    weights = torch.randn(2, 256)
    for importance in (torch.ones(255), torch.ones(256).double()):
        with pytest.raises(ValueError, match="importance of 256 columns"):
            rounded(kernels[0], weights, FORMATS["Q4_0"], importance)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", PLAIN)
def test_every_instruction_set_finds_the_same_bytes(kernels, variant, dtype, tmp_path):
    own, generator = Kernels(library_of(variant, tmp_path), 1), torch.Generator().manual_seed(0)
    weights = torch.randn(32, 1024 + 256, generator=generator)
    weights *= 10 ** torch.linspace(-7, 3, 32)[:, None] * torch.randn(weights.shape, generator=generator).exp()
    weights[:, ::7] = 0
    for fmt in BLOCKED:
        for some in (weights, weights.abs()):
            for counts in (None, torch.rand(1024 + 256, generator=generator) + 0.01):
                found, expected = (rounded(each, some.to(dtype), fmt, counts) for each in (own, kernels[0]))
                assert torch.equal(found, expected)
    own.close()


def test_infinities_and_nothing_at_all_end(kernels):
    for fmt in BLOCKED:
        for value in (float("nan"), float("inf"), 3.4e38, 0.0, -0.0, 1e-42):
            weights = torch.full((2, fmt.block_weights), value)
            assert rounded(kernels[0], weights, fmt).shape == (2, fmt.block_bytes)
        zero = rounded(kernels[0], torch.zeros(1, fmt.block_weights), fmt)
        assert dequantise(fmt, zero, fmt.block_weights).eq(0).all()


def test_rows_at_any_address(kernels):
    weights = torch.randn(3, 64).bfloat16()
    memory = torch.zeros(1 + weights.numel() * 2, dtype=torch.uint8)
    memory[1:] = weights.view(torch.uint8).flatten()
    odd = memory[1:].view(3, 128)
    assert torch.equal(plain(odd, torch.bfloat16), weights)
    found = kernels[0].rounded(odd, FORMATS["BF16"], 64, FORMATS["Q8_0"])
    assert torch.equal(found, rounded(kernels[0], weights, FORMATS["Q8_0"]))


def test_what_does_not_fit_is_refused(kernels):
    own, bf16, q8 = kernels[0], FORMATS["BF16"], FORMATS["Q8_0"]
    data = torch.zeros(2, 128, dtype=torch.uint8)
    with pytest.raises(ValueError, match="a row of 48"):
        own.rounded(torch.zeros(2, 96, dtype=torch.uint8), bf16, 48, q8)
    with pytest.raises(ValueError, match="go into"):
        own.rounded(data, bf16, 64, q8, torch.zeros(2, 67, dtype=torch.uint8))
    with pytest.raises(ValueError, match="refuse"):
        own.rounded(torch.zeros(2, 68, dtype=torch.uint8), q8, 64, FORMATS["Q4_0"])
    with pytest.raises(ValueError, match="uint8"):
        own.rounded(data.float(), bf16, 64, q8)
