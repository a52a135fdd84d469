"""Integers of 4 or 8 bits in words of int32, the first in the lowest bits: what all layouts are made of."""

from __future__ import annotations

import torch
from torch import Tensor

AWQ_SHIFTS = (0, 16, 4, 20, 8, 24, 12, 28)
"""Where AWQ has the first, second, ... of eight numbers: its nibbles are numbers 0 2 4 6 1 3 5 7 of them."""


def along_rows(words: Tensor, bits: int) -> Tensor:
    """The integers, uint8 (rows, n), of ``words``, int32 (rows, n * bits / 32), that hold them one after another."""
    data = words.contiguous().view(torch.uint8)
    return data if bits == 8 else halves(data)


def halves(data: Tensor) -> Tensor:
    """The integers of four bits, uint8 (rows, 2 n), of bytes (rows, n), the first in the lower half of each."""
    return torch.stack([data & 0x0F, data >> 4], dim=2).flatten(1)


def along_columns(words: Tensor, bits: int) -> Tensor:
    """The integers, uint8 (n, columns), of ``words``, int32 (n * bits / 32, columns)."""
    return along_rows(words.t(), bits).t()


def awq_columns(words: Tensor) -> Tensor:
    """The integers of four bits, uint8 (8 n, rows), of ``words``, int32 (rows, n): a row of the result was a column."""
    shifts = torch.tensor(AWQ_SHIFTS, dtype=torch.int32).reshape(1, -1, 1)
    numbers = words.t().contiguous().unsqueeze(1) >> shifts
    return (numbers & 0x0F).to(torch.uint8).flatten(0, 1)
