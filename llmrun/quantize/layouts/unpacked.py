"""A matrix as integers, scales and zeros, whatever layout it has; some rows at a time, so that little is unpacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from llmrun.checkpoint.integers import Matrix
from llmrun.checkpoint.schemes import Layout
from llmrun.quantize.layouts.words import along_columns, along_rows, awq_columns, halves

_DOUBLED = (0, 1, 2, 3, 4, 6, 8, 12)  # the floats of E2M1 that are not negative
_DOUBLED_BIAS = 128  # of a scale's exponent: one more than E8M0 has, for floats that are doubled
ROWS_TOGETHER = 8
"""Rows are asked for in multiples of so many, since AWQ has so many in a word."""


@dataclass(frozen=True)
class Unpacked:
    """Rows of a matrix: weight = scale[row, group of column] * (code - zero[row, group of column])."""

    codes: Tensor  # uint8 (rows, columns)
    scales: Tensor  # float32 (rows, groups)
    zeros: Tensor  # uint8 (rows, groups)


Parts = Mapping[str, Tensor]
"""The parts of a matrix as they are stored: ``integers``, ``scales`` and, where there are such, ``zeros``."""


def unpacker(matrix: Matrix, parts: Parts) -> Callable[[slice], Unpacked]:
    """Gives rows of ``matrix``, from and to multiples of ``ROWS_TOGETHER`` or the end.

    Scales and zeros of the whole matrix are unpacked here, its integers when they are asked for.
    """
    in_columns = matrix.scheme.layout in (Layout.GPTQ, Layout.AWQ)
    scales = parts["scales"].t() if in_columns else parts["scales"]
    if matrix.scheme.layout is Layout.MXFP4:
        scales = _powers(scales)
    shape = (matrix.rows, matrix.n_groups)
    scales = scales.reshape(-1, scales.shape[-1] if scales.dim() == 2 else 1).expand(shape)
    zeros = _zeros(matrix, parts.get("zeros")).expand(shape)

    def rows(wanted: slice) -> Unpacked:
        return Unpacked(_codes(matrix, parts["integers"], wanted), scales[wanted].float(), zeros[wanted])

    return rows


def _codes(matrix: Matrix, integers: Tensor, rows: slice) -> Tensor:
    layout, bits = matrix.scheme.layout, matrix.scheme.bits
    if layout is Layout.BYTES:
        return signed(integers[rows], 128)
    if layout is Layout.PACKED:
        return along_rows(integers[rows], bits)
    if layout is Layout.MXFP4:
        return _doubled(halves(integers[rows]), matrix.scheme.middle)
    if layout is Layout.GPTQ:
        return along_rows(integers[:, rows].t(), bits)
    words = integers[:, rows.start // ROWS_TOGETHER : -(-rows.stop // ROWS_TOGETHER)]
    return awq_columns(words)


def _zeros(matrix: Matrix, zeros: Tensor | None) -> Tensor:
    """The zero of each group, as large as the codes are: uint8, (rows, groups) or what expands to it."""
    scheme, middle = matrix.scheme, matrix.scheme.middle
    if zeros is None:
        return torch.full((1, 1), middle, dtype=torch.uint8)
    if zeros.dtype == torch.int8:
        return signed(zeros.reshape(-1, zeros.shape[-1] if zeros.dim() == 2 else 1), middle)
    if scheme.layout is Layout.PACKED:
        return along_columns(zeros, scheme.bits)[: matrix.rows]
    if scheme.layout is Layout.AWQ:
        return awq_columns(zeros)
    # GPTQ's first format stores one less; of a zero of 0 that is all bits, which are masked after one is added
    stored = along_rows(zeros, scheme.bits).t()[: matrix.rows]
    return torch.bitwise_and(stored + scheme.zero_offset, 2 * middle - 1)


def _doubled(floats: Tensor, middle: int) -> Tensor:
    """Twice the floats that four bits are, counted from ``-middle``: uint8."""
    positive = torch.tensor(_DOUBLED, dtype=torch.uint8)
    return torch.cat([middle + positive, middle - positive])[floats.int()]


def _powers(exponents: Tensor) -> Tensor:
    """The scales of doubled floats, float32; NaN where E8M0 has it."""
    scales = torch.ldexp(torch.ones(exponents.shape), exponents.int() - _DOUBLED_BIAS)
    return scales.masked_fill(exponents == 255, torch.nan)


def signed(integers: Tensor, middle: int) -> Tensor:
    """Signed integers, int8, counted from the least: uint8."""
    return integers.view(torch.uint8) + middle
