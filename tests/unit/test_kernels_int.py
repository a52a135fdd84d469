"""A few tokens times weights of integer formats, by every variant that this CPU runs, against sums in double."""

import ctypes
import mmap
from collections.abc import Iterator

import pytest
import torch
from packed_weights import GROUP, INTEGER_FORMATS, VARIANTS, exact_activations, library_of, packed_weights

from llmrun.formats import FORMATS, WeightFormat
from llmrun.kernels.linear import Kernels
from llmrun.kernels.reference import dequantise

FEW_TOKENS = range(1, 9)
each_format = pytest.mark.parametrize("fmt", INTEGER_FORMATS, ids=lambda fmt: fmt.name)


@pytest.fixture(scope="module", params=VARIANTS)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernels]:
    made = Kernels(library_of(request.param, tmp_path_factory.mktemp("kernels")), 2)
    yield made
    made.close()


def before_a_guard(nbytes: int) -> torch.Tensor:
    """Memory behind whose last byte a read ends the process."""
    pages = -(-nbytes // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    end, no_access = pages * mmap.PAGESIZE, 0
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(whole.data_ptr() + end), mmap.PAGESIZE, no_access) == 0
    return whole[end - nbytes : end]


def assert_product(kernels: Kernels, fmt: WeightFormat, weight: torch.Tensor, x: torch.Tensor) -> None:
    """What is left of the sums' own rounding: 2e-6 of the sum of the sizes."""
    weights, columns = dequantise(fmt, weight, x.shape[1]).double(), x.shape[1]
    error = kernels.linear(x, weight, fmt, columns) - x.double() @ weights.T
    assert (error.abs() <= 2e-6 * x.double().abs() @ weights.abs().T).all()


@each_format
def test_any_rows_and_blocks_of_activations_that_int8_holds(kernels: Kernels, fmt: WeightFormat) -> None:
    for blocks in (1, 2, 3, 4, 5, 18) if fmt.block_weights == GROUP else (1, 3):
        for rows in (1, 2, 3, 5, 41):
            columns, tokens = blocks * fmt.block_weights, rows * blocks % 8 + 1
            x = exact_activations(tokens, columns, seed=rows)
            assert_product(kernels, fmt, packed_weights(fmt, rows, columns, seed=blocks), x)


@each_format
@pytest.mark.parametrize("byte", [0x00, 0x80, 0xFF])
def test_the_greatest_and_least_integers_do_not_overflow(kernels: Kernels, fmt: WeightFormat, byte: int) -> None:
    weight = packed_weights(fmt, 3, 512)
    blocks = weight.view(3, -1, fmt.block_bytes)
    scales = blocks.clone()
    blocks[:] = byte
    for at in (208,) if fmt.name == "Q6_K" else (0, 2):  # of formats without minima byte 2 is the first of the weights'
        blocks[..., at : at + 2] = scales[..., at : at + 2]
    for x in (torch.full((1, 512), 127.0), torch.full((1, 512), -127.0)):
        assert_product(kernels, fmt, weight, x)


@each_format
def test_a_token_s_product_does_not_depend_on_the_others(kernels: Kernels, fmt: WeightFormat) -> None:
    weight, x = packed_weights(fmt, 13, 768), torch.randn(8, 768, generator=torch.Generator().manual_seed(4))
    alone = torch.cat([kernels.linear(x[t : t + 1], weight, fmt, 768) for t in range(8)])
    for tokens in range(2, 5):
        assert torch.equal(kernels.linear(x[:tokens], weight, fmt, 768), alone[:tokens])


@each_format
def test_rounding_of_activations_is_all_that_is_lost(kernels: Kernels, fmt: WeightFormat) -> None:
    columns, rows = 1024, 29
    weight = packed_weights(fmt, rows, columns, seed=2)
    weights = dequantise(fmt, weight, columns)
    x = torch.randn(8, columns, generator=torch.Generator().manual_seed(5))
    steps = x.unflatten(1, (-1, GROUP)).abs().amax(2, keepdim=True).expand(-1, -1, GROUP).flatten(1) / 127
    for tokens in FEW_TOKENS:
        error = (kernels.linear(x[:tokens], weight, fmt, columns) - x[:tokens] @ weights.T).abs()
        assert (error <= 0.501 * steps[:tokens] @ weights.abs().T).all()
        usual = (steps[:tokens].square() / 12 @ weights.square().T).sqrt()  # as of numbers spread evenly over a step
        assert 0.5 < error.norm() / usual.norm() < 1.5


@each_format
def test_nothing_is_read_behind_the_last_row(kernels: Kernels, fmt: WeightFormat) -> None:
    for blocks in (1, 2, 3, 4, 7):
        columns = blocks * fmt.block_weights
        weight, x = packed_weights(fmt, 5, columns, seed=blocks), exact_activations(3, columns)
        guarded = before_a_guard(weight.numel()).view(5, -1).copy_(weight)
        assert torch.equal(kernels.linear(x, guarded, fmt, columns), kernels.linear(x, weight, fmt, columns))


@each_format
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_a_group_that_is_no_number_spoils_its_own_token_only(kernels: Kernels, fmt: WeightFormat, bad: float) -> None:
    weight, x = packed_weights(fmt, 6, 512), exact_activations(3, 512)
    whole = kernels.linear(x, weight, fmt, 512)
    x[1, 77] = bad
    spoilt = kernels.linear(x, weight, fmt, 512)
    assert spoilt[1].isnan().all()
    assert torch.equal(spoilt[[0, 2]], whole[[0, 2]])


@each_format
def test_nothing_comes_of_nothing(kernels: Kernels, fmt: WeightFormat) -> None:
    weight = packed_weights(fmt, 6, 512)
    assert not kernels.linear(torch.zeros(2, 512), weight, fmt, 512).any()
    tiny = kernels.linear(torch.full((2, 512), 1e-40), weight, fmt, 512)
    assert tiny.abs().max() < 1e-30
    assert kernels.linear(torch.full((1, 512), 1e30), weight, fmt, 512).isfinite().all()


@each_format
def test_weights_that_are_no_numbers_go_through(kernels: Kernels, fmt: WeightFormat) -> None:
    weight = torch.full((4, fmt.row_bytes(512)), 0xFF, dtype=torch.uint8)
    weight[::2] = packed_weights(fmt, 2, 512)
    product = kernels.linear(exact_activations(2, 512), weight, fmt, 512)
    assert product[:, 1::2].isnan().all()
    assert product[:, ::2].isfinite().all()


def test_long_rows_and_many_are_shared_among_threads(kernels: Kernels) -> None:
    fmt = FORMATS["Q4_0"]
    weight, x = packed_weights(fmt, 1030, 4096), exact_activations(2, 4096)
    assert_product(kernels, fmt, weight, x)
