"""A few tokens times weights of integer formats: any shape, any address, any distance of the rows, any threads."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_weights import INTEGER_FORMATS, VARIANTS, exact_activations, library_of, packed_weights

from llmrun.formats import WeightFormat
from llmrun.kernels.linear import Kernels
from llmrun.kernels.reference import dequantise


@pytest.fixture(scope="module", params=VARIANTS)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Kernels]]:
    library = library_of(request.param, tmp_path_factory.mktemp("kernels"))
    made = {threads: Kernels(library, threads) for threads in (1, 3)}
    yield made
    for each in made.values():
        each.close()


@settings(max_examples=100, deadline=None)
@given(
    fmt=st.sampled_from(INTEGER_FORMATS),
    blocks=st.integers(1, 9),
    rows=st.integers(1, 40),
    tokens=st.integers(1, 8),
    offset=st.integers(0, 64),
    gap=st.integers(0, 9),
    threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_products_equal_sums_in_double(
    kernels: dict[int, Kernels],
    fmt: WeightFormat,
    blocks: int,
    rows: int,
    tokens: int,
    offset: int,
    gap: int,
    threads: int,
    seed: int,
) -> None:
    columns = blocks * fmt.block_weights
    weight, x = packed_weights(fmt, rows, columns, seed), exact_activations(tokens, columns, seed)
    stride = weight.shape[1] + gap
    memory = torch.full((offset + rows * stride,), 255, dtype=torch.uint8)
    apart = memory[offset:].view(rows, stride)[:, : weight.shape[1]].copy_(weight)
    weights = dequantise(fmt, weight, columns).double()
    error = kernels[threads].linear(x, apart, fmt, columns) - x.double() @ weights.T
    assert (error.abs() <= 2e-6 * x.double().abs() @ weights.abs().T).all()
