"""What the bytes of each format mean: the plain torch reference that every kernel is tested against.

Equal to ``gguf.quants.dequantize`` bit for bit. Memory: the floats, and some temporaries of their size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llmrun.formats import WeightFormat
from llmrun.kernels.packing import half, nibbles, sequential_bits, six_bit_pairs, split, spread_bits

PLAIN_DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
}


def dequantise(fmt: WeightFormat, data: Tensor, columns: int) -> Tensor:
    """The weights, float32 (rows, columns), of ``data``, uint8 (rows, row_bytes).

    Raises:
        ValueError: the rows are not ``fmt.row_bytes(columns)`` long.
    """
    rows, row_bytes = data.shape
    if row_bytes != fmt.row_bytes(columns):
        raise ValueError(f"a row of {columns} {fmt.name} weights takes {fmt.row_bytes(columns)} bytes, not {row_bytes}")
    if fmt.is_plain:
        return data.contiguous().view(PLAIN_DTYPES[fmt.name]).float()
    blocks = data.reshape(-1, fmt.block_bytes)
    return _WEIGHTS[fmt.name](blocks).reshape(rows, columns)


def _q8_0(blocks: Tensor) -> Tensor:
    scale, q = split(blocks, (2, 32))
    return q.contiguous().view(torch.int8).float() * half(scale)


def _q4_0(blocks: Tensor) -> Tensor:
    scale, q = split(blocks, (2, 16))
    return half(scale) * (nibbles(q, 16).float() - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    scale, low, q = split(blocks, (2, 2, 16))
    return half(scale) * nibbles(q, 16).float() + half(low)


def _q5_0(blocks: Tensor) -> Tensor:
    scale, high, q = split(blocks, (2, 4, 16))
    return half(scale) * ((nibbles(q, 16) | (sequential_bits(high) << 4)).float() - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    scale, low, high, q = split(blocks, (2, 2, 4, 16))
    return half(scale) * (nibbles(q, 16) | (sequential_bits(high) << 4)).float() + half(low)


def _q4_k(blocks: Tensor) -> Tensor:
    scale, minimum, pairs, q = split(blocks, (2, 2, 12, 128))
    return _scaled_groups(scale, minimum, pairs, nibbles(q, 32))


def _q5_k(blocks: Tensor) -> Tensor:
    scale, minimum, pairs, high, q = split(blocks, (2, 2, 12, 32, 128))
    return _scaled_groups(scale, minimum, pairs, nibbles(q, 32) | (spread_bits(high, 32, 1) << 4))


def _scaled_groups(scale: Tensor, minimum: Tensor, pairs: Tensor, q: Tensor) -> Tensor:
    scales, minima = six_bit_pairs(pairs)
    d = (half(scale) * scales.float()).unsqueeze(2)
    m = (half(minimum) * minima.float()).unsqueeze(2)
    return (d * q.reshape(len(q), 8, 32).float() - m).flatten(1)


def _q6_k(blocks: Tensor) -> Tensor:
    low, high, scales, scale = split(blocks, (128, 64, 16, 2))
    d = (half(scale) * scales.contiguous().view(torch.int8).float()).unsqueeze(2)
    q = nibbles(low, 64) | (spread_bits(high, 32, 2) << 4)
    return (d * (q.reshape(len(q), 16, 16).float() - 32)).flatten(1)


_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
