"""Products and attention of any shape, by the variant that this CPU picks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrun.formats import FORMATS
from llmrun.kernels.library import find_library
from llmrun.kernels.linear import Kernels
from llmrun.kernels.scales import Scales

BUILT = find_library()
pytestmark = pytest.mark.skipif(BUILT is None, reason="the kernels are not built")
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(DTYPES)),
    rows=st.integers(1, 90),
    columns=st.integers(1, 300),
    tokens=st.integers(1, 19),
    threads=st.integers(1, 4),
    shift=st.integers(0, 5),
)
def test_plain_products(name: str, rows: int, columns: int, tokens: int, threads: int, shift: int) -> None:
    generator = torch.Generator().manual_seed(rows * columns)
    weights = torch.randn(rows, columns, generator=generator).to(DTYPES[name])
    x = torch.randn(tokens, columns, generator=generator)
    row_bytes = columns * weights.element_size()
    memory = torch.empty(shift + rows * row_bytes, dtype=torch.uint8)
    memory[shift:] = weights.view(torch.uint8).view(-1)
    kernels = Kernels(BUILT, threads)
    found = kernels.linear(x, memory[shift:].view(rows, row_bytes), FORMATS[name], columns)
    kernels.close()
    greatest = x.double().abs() @ weights.double().abs().T
    assert ((found - x.double() @ weights.double().T).abs() <= 1e-6 * greatest).all()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 90),
    columns=st.integers(1, 300),
    block=st.tuples(st.integers(1, 140), st.integers(1, 140)),
    tokens=st.integers(1, 19),
    threads=st.integers(1, 4),
    shift=st.integers(0, 5),
)
def test_eight_bit_floats(
    rows: int, columns: int, block: tuple[int, int], tokens: int, threads: int, shift: int
) -> None:
    generator = torch.Generator().manual_seed(rows * columns)
    memory = torch.randint(0, 127, (shift + rows * columns,), generator=generator, dtype=torch.uint8)
    packed = memory[shift:].view(rows, columns)
    scales = Scales(torch.randn(-(-rows // block[0]), -(-columns // block[1]), generator=generator), *block)
    weights = scales.times(packed.view(torch.float8_e4m3fn).double())
    x = torch.randn(tokens, columns, generator=generator)
    kernels = Kernels(BUILT, threads)
    found = kernels.linear(x, packed, FORMATS["F8_E4M3"], columns, scales=scales)
    assert torch.equal(kernels.floats(packed, FORMATS["F8_E4M3"], columns, scales), weights.float())
    kernels.close()
    assert ((found - x.double() @ weights.T).abs() <= 1e-6 * x.double().abs() @ weights.abs().T).all()


@settings(max_examples=40, deadline=None)
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 6),
    queries=st.integers(1, 60),
    past=st.integers(0, 1200),
    head_dim=st.integers(1, 140),
    dtype=st.sampled_from(sorted(DTYPES)),
)
def test_attention(kv_heads: int, group: int, queries: int, past: int, head_dim: int, dtype: str) -> None:
    generator = torch.Generator().manual_seed(past)
    tokens = past + queries
    keys, values = torch.randn(2, kv_heads, tokens, head_dim, generator=generator).to(DTYPES[dtype])
    query = torch.randn(kv_heads * group, queries, head_dim, generator=generator)
    kernels = Kernels(BUILT, 2)
    found = kernels.attention(query, keys, values, 0.5)
    kernels.close()
    seen = torch.ones(queries, tokens, dtype=torch.bool).tril(past)
    scores = query.double() @ keys.double().repeat_interleave(group, 0).transpose(1, 2) * 0.5
    expected = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values.double().repeat_interleave(group, 0)
    assert (found - expected).abs().max() < 2e-5
