"""How the bytes of a unit lie in a page-aligned buffer when direct I/O reads them.

Direct I/O moves whole blocks, while safetensors puts tensors at any byte. So the aligned stretch of the file that
encloses the tensors is read, and each tensor is a view into the buffer. Pure arithmetic: no file is touched.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmrun.checkpoint.spec import ScaleBlocks, TensorSpec, UnitSpec
from llmrun.checkpoint.stretches import ALIGNMENT, enclosing, stretches

__all__ = ["ALIGNMENT", "Extent", "TensorView", "UnitLayout", "layout"]


@dataclass(frozen=True)
class Extent:
    """One stretch of a file to read; every number is a multiple of ``ALIGNMENT``.

    ``file_offset + nbytes`` may lie beyond the end of the file by less than ``ALIGNMENT``: that last read comes short.
    """

    file: str
    file_offset: int
    nbytes: int
    buffer_offset: int


@dataclass(frozen=True)
class TensorView:
    """Where a tensor begins in the buffer, not necessarily at a multiple of its element's size."""

    name: str
    buffer_offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]
    paired_head_dim: int | None = None  # as ``TensorSpec`` has it, like the next two
    minus_one: bool = False
    scales: ScaleBlocks | None = None


@dataclass(frozen=True)
class UnitLayout:
    """What to read for a unit, where each tensor then is, and the bytes the buffer needs (a multiple of ``ALIGNMENT``).

    ``views`` are in the order of the unit's tensors.
    """

    extents: tuple[Extent, ...]
    views: tuple[TensorView, ...]
    nbytes: int


def layout(unit: UnitSpec) -> UnitLayout:
    """The layout of ``unit`` in a buffer of its own that starts at a page."""
    extents: list[Extent] = []
    views: dict[str, TensorView] = {}
    position = 0
    for stretch in stretches(unit.tensors):
        there = enclosing(stretch)
        views |= {tensor.name: _view(tensor, position + tensor.offset - there.start) for tensor in stretch}
        if there:
            extents.append(Extent(stretch[0].file, there.start, len(there), position))
        position += len(there)
    return UnitLayout(tuple(extents), tuple(views[tensor.name] for tensor in unit.tensors), position)


def _view(tensor: TensorSpec, buffer_offset: int) -> TensorView:
    return TensorView(
        tensor.name,
        buffer_offset,
        tensor.nbytes,
        tensor.dtype,
        tensor.shape,
        tensor.paired_head_dim,
        tensor.minus_one,
        tensor.scales,
    )
