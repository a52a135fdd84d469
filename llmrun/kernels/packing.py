"""How ggml's blocks hold their numbers: taken apart into integers, and put together again, format by format.

Every block is groups of 16 or 32 weights, each an unsigned integer `q` with a scale and, in some formats, a minimum:
w = scale * (q - middle) or w = scale * q - minimum. Here `n` blocks are uint8 of shape (n, block_bytes), their integers
`q` are uint8 of shape (n, block_weights) in the order of the weights, and fp16 scales are float32 of shape (n, 1).
Source: the structs of ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def split(blocks: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """The parts of each block, one after another, of that many bytes each."""
    return torch.split(blocks, list(sizes), dim=1)


def half(part: Tensor) -> Tensor:
    """Two bytes of each block as one fp16 number, float32 (n, 1)."""
    return part.contiguous().view(torch.float16).float()


def half_bytes(values: Tensor) -> Tensor:
    """The reverse of ``half``; ``values`` (n,) are rounded to fp16."""
    return values.reshape(-1, 1).half().view(torch.uint8)


def nibbles(part: Tensor, run: int) -> Tensor:
    """Four-bit integers: each ``run`` bytes hold ``run`` of them in their lower halves, then ``run`` in their upper."""
    runs = part.reshape(len(part), -1, 1, run)
    return torch.cat([runs & 0x0F, runs >> 4], dim=2).reshape(len(part), -1)


def nibble_bytes(q: Tensor, run: int) -> Tensor:
    """The reverse of ``nibbles``; only the lower four bits of ``q`` are taken."""
    runs = q.reshape(len(q), -1, 2, run)
    return ((runs[:, :, 0] & 0x0F) | (runs[:, :, 1] << 4)).reshape(len(q), -1)


def spread_bits(part: Tensor, run: int, bits: int) -> Tensor:
    """Integers of ``bits`` (1 or 2): ``run`` bytes hold those of ``run`` weights in their lowest, then of the next."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8).reshape(1, 1, -1, 1)
    fields = part.reshape(len(part), -1, 1, run) >> shifts
    kept: Tensor = fields & (2**bits - 1)
    return kept.reshape(len(part), -1)


def spread_bytes(fields: Tensor, run: int, bits: int) -> Tensor:
    """The reverse of ``spread_bits``."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8).reshape(1, 1, -1, 1)
    runs = fields.reshape(len(fields), -1, 8 // bits, run) << shifts
    return runs.sum(dim=2, dtype=torch.uint8).reshape(len(fields), -1)


def sequential_bits(part: Tensor) -> Tensor:
    """The bits of each byte, lowest first: those of eight weights in a row (Q5_0, Q5_1)."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return ((part.unsqueeze(2) >> shifts) & 1).reshape(len(part), -1)


def sequential_bytes(bits: Tensor) -> Tensor:
    """The reverse of ``sequential_bits``."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return (bits.reshape(len(bits), -1, 8) << shifts).sum(dim=2, dtype=torch.uint8)


def six_bit_pairs(part: Tensor) -> tuple[Tensor, Tensor]:
    """Eight scales and eight minima of six bits, uint8 (n, 8) each, from the twelve bytes of Q4_K and Q5_K."""
    scale, minimum, mixed = split(part, (4, 4, 4))
    scales = torch.cat([scale & 0x3F, (mixed & 0x0F) | ((scale >> 2) & 0x30)], dim=1)
    minima = torch.cat([minimum & 0x3F, (mixed >> 4) | ((minimum >> 2) & 0x30)], dim=1)
    return scales, minima


def six_bit_bytes(scales: Tensor, minima: Tensor) -> Tensor:
    """The reverse of ``six_bit_pairs``."""
    first = [values[:, :4] | ((values[:, 4:] & 0x30) << 2) for values in (scales, minima)]
    mixed = (scales[:, 4:] & 0x0F) | (minima[:, 4:] << 4)
    return torch.cat([*first, mixed], dim=1)
