"""Rounding to a format: what is lost, against the rounding of others and on weights that are odd."""

from collections.abc import Callable

import pytest
import torch
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from torch import Tensor

from llmrun.formats import FORMATS, WeightFormat, weight_format
from llmrun.kernels.reference import dequantise
from llmrun.quantize.rounding import quantise

ROWS, COLUMNS = 24, 1024
BLOCKED = [fmt for fmt in FORMATS.values() if not fmt.is_plain]
BY_GGUF = [weight_format(name) for name in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")]
# relative errors of llama-quantize (llama.cpp of llama-cpp-python 0.3.36) on 4 M normal weights
BY_LLAMA_CPP = {"Q4_0": 0.0859, "Q4_K": 0.0713, "Q5_K": 0.0361, "Q6_K": 0.0177}


def normal(seed: int = 0, rows: int = ROWS) -> Tensor:
    return torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(seed))


def heavy_tailed() -> Tensor:
    return 0.02 * normal(1) / normal(2).abs().clamp(min=0.05)


def relative_error(fmt: WeightFormat, weights: Tensor, importance: Tensor | None = None) -> float:
    done = dequantise(fmt, quantise(fmt, weights, importance), weights.shape[1])
    return float((done - weights).norm() / weights.norm())


@pytest.mark.parametrize("fmt", BY_GGUF, ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("make", [normal, heavy_tailed])
def test_less_is_lost_than_by_ggufs_rounding(fmt: WeightFormat, make: Callable[[], Tensor]) -> None:
    weights = make()
    kind = GGMLQuantizationType[fmt.name]
    theirs = torch.from_numpy(dequantize(quantize(weights.numpy(), kind), kind))
    assert relative_error(fmt, weights) < float((theirs - weights).norm() / weights.norm())


@pytest.mark.parametrize(("name", "theirs"), BY_LLAMA_CPP.items())
def test_no_more_is_lost_than_by_llama_cpp(name: str, theirs: float) -> None:
    assert relative_error(weight_format(name), normal(rows=256)) < theirs


@pytest.mark.parametrize("fmt", BLOCKED, ids=lambda fmt: fmt.name)
def test_columns_that_matter_are_rounded_better(fmt: WeightFormat) -> None:
    weights = normal(3)
    importance = torch.rand(COLUMNS, generator=torch.Generator().manual_seed(4)) ** 4

    def lost(weighting: Tensor | None) -> float:
        done = dequantise(fmt, quantise(fmt, weights, weighting), COLUMNS)
        return float((importance * (done - weights) ** 2).sum())

    assert lost(importance) < 0.95 * lost(None)


@pytest.mark.parametrize("fmt", BLOCKED, ids=lambda fmt: fmt.name)
def test_odd_weights(fmt: WeightFormat) -> None:
    weights = torch.zeros(6, fmt.block_weights)
    weights[1] = 0.37  # all alike
    weights[2] = -0.37
    weights[3, 5] = 3.0  # one alone
    weights[4] = 1e-12  # below what fp16 can hold
    weights[5] = torch.linspace(4.0, 5.0, fmt.block_weights)  # far from zero
    done = dequantise(fmt, quantise(fmt, weights), fmt.block_weights)
    assert done.isfinite().all()
    assert done[0].eq(0).all()
    tolerance = 0.04 * weights.abs().amax(1, keepdim=True) + 1e-11
    flat = fmt.name in ("Q4_0", "Q5_0")  # 16 levels on both sides of zero
    assert ((done - weights).abs() <= (3 if flat else 1.5) * tolerance).all()


@pytest.mark.parametrize("fmt", BLOCKED, ids=lambda fmt: fmt.name)
def test_importance_may_be_nothing_at_all(fmt: WeightFormat) -> None:
    weights = normal(5, rows=2)
    importance = torch.zeros(COLUMNS)
    assert relative_error(fmt, weights, importance) < 0.2  # a text that never reached the layer
    importance[:8] = 1.0
    assert relative_error(fmt, weights, importance) < 0.5


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS.keys())
def test_rows_do_not_depend_on_each_other(fmt: WeightFormat) -> None:
    weights = normal(6, rows=300)  # more than one chunk
    assert torch.equal(quantise(fmt, weights)[290:], quantise(fmt, weights[290:].clone()))


def test_plain_formats_are_torchs_own() -> None:
    weights = normal(7)
    assert torch.equal(quantise(weight_format("F32"), weights).view(torch.float32), weights)
    assert torch.equal(quantise(weight_format("BF16"), weights).view(torch.bfloat16), weights.bfloat16())


def test_a_row_of_broken_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="1000 weights"):
        quantise(weight_format("Q8_0"), torch.zeros(2, 1000))
    with pytest.raises(ValueError, match="not 33"):
        dequantise(weight_format("Q8_0"), torch.zeros(2, 33, dtype=torch.uint8), 32)


@pytest.mark.usefixtures("two_threads")
def test_the_number_of_threads_stays_as_it_was() -> None:
    quantise(weight_format("Q4_0"), normal())
    assert torch.get_num_threads() == 2
