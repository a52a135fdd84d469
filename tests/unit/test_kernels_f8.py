"""8-bit floats with scales beside them: every variant of the kernels against sums in double."""

from collections.abc import Iterator

import pytest
import torch
from packed_weights import VARIANTS, library_of

from llmrun.formats import FORMATS
from llmrun.kernels.linear import Kernels
from llmrun.kernels.scales import Scales

F8 = FORMATS["F8_E4M3"]


@pytest.fixture(scope="module", params=VARIANTS)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernels]:
    kernels = Kernels(library_of(request.param, tmp_path_factory.mktemp(request.param)), 3)
    yield kernels
    kernels.close()


def made(rows: int, columns: int, block: tuple[int, int], skew: int = 0) -> tuple[torch.Tensor, Scales, torch.Tensor]:
    """Bytes of any weights but NaN ``skew`` bytes from an alignment, scales, and the weights with them in double."""
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    memory = torch.randint(0, 256, (skew + rows * columns,), dtype=torch.uint8, generator=generator)
    memory[(memory & 0x7F) == 0x7F] = 0x7E
    packed = memory[skew:].view(rows, columns)
    blocks = (-(-rows // block[0]), -(-columns // block[1]))
    scales = Scales(torch.rand(blocks, generator=generator) / 100 + 1e-4, *block)
    return packed, scales, scales.times(packed.view(torch.float8_e4m3fn).double())


def assert_near(product: torch.Tensor, weights: torch.Tensor, x: torch.Tensor) -> None:
    assert ((product - x.double() @ weights.T).abs() <= 1e-6 * x.double().abs() @ weights.abs().T).all()


@pytest.mark.parametrize(
    ("rows", "columns", "block"),
    [
        (1, 1, (128, 128)),
        (7, 31, (128, 128)),
        (130, 129, (128, 128)),
        (200, 300, (128, 128)),
        (256, 384, (128, 128)),
        (33, 515, (1, 515)),
        (37, 260, (37, 260)),
        (9, 100, (2, 3)),
        (12, 96, (5, 32)),
        (5, 40, (2**40, 2**40)),
    ],
)
def test_products_with_blocks_of_any_shape(kernels: Kernels, rows: int, columns: int, block: tuple[int, int]) -> None:
    packed, scales, weights = made(rows, columns, block, skew=rows % 4)
    for tokens in (1, 2, 3, 4, 5, 8, 11):
        x = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(tokens))
        assert_near(kernels.linear(x, packed, F8, columns, scales=scales), weights, x)
    assert torch.equal(kernels.floats(packed, F8, columns, scales), weights.float())


def test_every_byte_is_the_number_that_torch_says(kernels: Kernels) -> None:
    every = torch.arange(256, dtype=torch.uint8).view(4, 64)
    expected = every.view(torch.float8_e4m3fn).float()
    assert torch.equal(kernels.floats(every, F8, 64).nan_to_num(7e7), expected.nan_to_num(7e7))
    assert expected.isnan().sum() == 2
    row = torch.empty(256)
    assert kernels._functions.llmrun_dequantise(F8.number, every.data_ptr(), 256, row.data_ptr()) == 0
    assert torch.equal(row.nan_to_num(7e7), expected.flatten().nan_to_num(7e7))


@pytest.mark.parametrize("column", [0, 40, 69])
def test_what_is_not_a_number_stays_in_its_row(kernels: Kernels, column: int) -> None:
    packed, scales, weights = made(9, 70, (128, 128))
    packed[4, column] = 0xFF
    product = kernels.linear(torch.ones(2, 70), packed, F8, 70, scales=scales)
    assert product[:, 4].isnan().all()
    others = [row for row in range(9) if row != 4]
    assert_near(product[:, others], weights[others], torch.ones(2, 70))


def test_without_scales_they_are_one(kernels: Kernels) -> None:
    packed, _, _ = made(20, 77, (128, 128))
    x = torch.randn(3, 77, generator=torch.Generator().manual_seed(5))
    assert_near(kernels.linear(x, packed, F8, 77), packed.view(torch.float8_e4m3fn).double(), x)


def test_a_token_s_product_does_not_depend_on_the_others(kernels: Kernels) -> None:
    packed, scales, _ = made(301, 515, (128, 128))
    x = torch.randn(11, 515, generator=torch.Generator().manual_seed(1))
    together = kernels.linear(x, packed, F8, 515, scales=scales)
    for count in (1, 2, 3, 5, 8):
        assert torch.equal(kernels.linear(x[:count], packed, F8, 515, scales=scales), together[:count])


@pytest.mark.parametrize(
    "wrong",
    [
        Scales(torch.ones(2, 2), 128, 128),
        Scales(torch.ones(1, 2), 128, 32),
        Scales(torch.ones(1, 1, dtype=torch.bfloat16), 128, 128),
        Scales(torch.ones(4, 2)[:, :1], 3, 128),
        Scales(torch.ones(1), 128, 128),
    ],
    ids=["rows", "columns", "dtype", "apart", "vector"],
)
def test_scales_that_do_not_fit_are_refused(kernels: Kernels, wrong: Scales) -> None:
    packed, _, _ = made(10, 70, (128, 128))
    with pytest.raises(ValueError, match="scales"):
        kernels.linear(torch.ones(1, 70), packed, F8, 70, scales=wrong)


def test_other_formats_have_no_scales_beside_them(kernels: Kernels) -> None:
    with pytest.raises(ValueError, match="refuse"):
        kernels.linear(
            torch.ones(1, 8),
            torch.zeros(4, 16, dtype=torch.uint8),
            FORMATS["BF16"],
            8,
            scales=Scales(torch.ones(1, 1), 4, 8),
        )
    with pytest.raises(ValueError, match="must go to"):
        kernels.floats(torch.zeros(4, 8, dtype=torch.uint8), F8, 8, out=torch.zeros(4, 9))
    with pytest.raises(ValueError, match="refuse"):
        kernels.floats(torch.zeros(4, 34, dtype=torch.uint8), FORMATS["Q8_0"], 32)


def test_rows_take_the_scales_of_their_blocks() -> None:
    packed, scales, weights = made(300, 200, (128, 64))
    ids = torch.tensor([299, 0, 127, 128, 128])
    numbers = packed.view(torch.float8_e4m3fn).double()
    assert torch.equal(scales.of_rows(ids).times(numbers[ids]), weights[ids])
    assert torch.equal(scales.between(100, 140).times(numbers[100:140]), weights[100:140])
