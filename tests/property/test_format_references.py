"""Every format against gguf's own arithmetic, on any bytes; packing and unpacking are each other's reverse."""

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrun.formats import FORMATS, NOT_GGMLS, WeightFormat
from llmrun.kernels import packing
from llmrun.kernels.reference import dequantise

FORMAT = st.sampled_from([each for each in FORMATS.values() if each.number < NOT_GGMLS])
SEED = st.integers(0, 2**32 - 1)


def any_bytes(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@given(FORMAT, st.integers(1, 5), st.integers(1, 4), SEED)
@settings(max_examples=200, deadline=None)
def test_any_bytes_mean_what_gguf_says(fmt: WeightFormat, rows: int, blocks: int, seed: int) -> None:
    columns = blocks * fmt.block_weights
    data = any_bytes(seed, rows, fmt.row_bytes(columns))
    ours = dequantise(fmt, torch.from_numpy(data), columns).numpy()
    with np.errstate(all="ignore"):  # any bytes are infinities and NaNs, too
        theirs = dequantize(data, GGMLQuantizationType[fmt.name])
    numbers = ~np.isnan(theirs)
    assert (np.isnan(ours) == ~numbers).all()
    assert (ours.view(np.uint32)[numbers] == theirs.astype(np.float32).view(np.uint32)[numbers]).all()


@given(st.integers(1, 4), SEED)
def test_bytes_taken_apart_go_together_again(n: int, seed: int) -> None:
    part = torch.from_numpy(any_bytes(seed, n, 128))
    assert torch.equal(packing.nibble_bytes(packing.nibbles(part, 16), 16), part)
    assert torch.equal(packing.nibble_bytes(packing.nibbles(part, 64), 64), part)
    assert torch.equal(packing.spread_bytes(packing.spread_bits(part, 32, 1), 32, 1), part)
    assert torch.equal(packing.spread_bytes(packing.spread_bits(part, 32, 2), 32, 2), part)
    assert torch.equal(packing.sequential_bytes(packing.sequential_bits(part)), part)
    assert torch.equal(packing.six_bit_bytes(*packing.six_bit_pairs(part[:, :12])), part[:, :12])
