"""Scales that lie beside 8-bit floats: what the weights of each block of a matrix are multiplied by."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Scales:
    """One scale for each block of ``block_rows`` x ``block_columns`` weights; those at the edges are cut off.

    Attributes:
        values: ``(ceil(rows / block_rows), ceil(columns / block_columns))`` fp32, contiguous.
    """

    values: torch.Tensor
    block_rows: int
    block_columns: int

    def of_rows(self, rows: torch.Tensor) -> Scales:
        """The scales of some rows of the matrix, by their numbers."""
        return Scales(self.values[rows // self.block_rows], 1, self.block_columns)

    def between(self, begin: int, end: int) -> Scales:
        """The scales of the rows from ``begin`` up to ``end``."""
        return self.of_rows(torch.arange(begin, end, device=self.values.device))

    def times(self, weights: torch.Tensor) -> torch.Tensor:
        """``weights``, all rows and columns of the matrix as floats, each with its scale."""
        rows, columns = weights.shape
        spread = self.values.repeat_interleave(min(self.block_rows, rows), 0)[:rows]
        return weights * spread.repeat_interleave(min(self.block_columns, columns), 1)[:, :columns]

    def fit(self, rows: int, columns: int) -> bool:
        """Whether they are those of a matrix of that shape."""
        blocks = (-(-rows // self.block_rows), -(-columns // self.block_columns))
        return self.values.shape == blocks and self.values.dtype == torch.float32 and self.values.is_contiguous()
