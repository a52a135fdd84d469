"""How the bytes of a unit lie in a page-aligned buffer when direct I/O reads them.

Direct I/O moves whole blocks, while safetensors puts tensors at any byte. So the aligned stretch of the file that
encloses the tensors is read, and each tensor is a view into the buffer. Pure arithmetic: no file is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from llmrun.checkpoint.spec import TensorSpec, UnitSpec
from llmrun.units import KIB

ALIGNMENT = 4096
MAX_GAP_BYTES = 64 * KIB  # reading over a smaller gap costs less than another request


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
    groups = _groups(sorted(unit.tensors, key=lambda tensor: (tensor.file, tensor.offset)))
    extents: list[Extent] = []
    views: dict[str, TensorView] = {}
    position = 0
    for group in groups:
        start = _floor(group[0].offset)
        end = _ceil(max(tensor.offset + tensor.nbytes for tensor in group))
        extent = Extent(group[0].file, start, end - start, position)
        views |= {tensor.name: _view(tensor, position + tensor.offset - start) for tensor in group}
        if extent.nbytes:
            extents.append(extent)
        position += extent.nbytes
    return UnitLayout(tuple(extents), tuple(views[tensor.name] for tensor in unit.tensors), position)


def _groups(tensors: list[TensorSpec]) -> list[list[TensorSpec]]:
    """Tensors, sorted by place, that one read takes together."""
    groups = [[tensor] for tensor in tensors[:1]]
    for before, tensor in pairwise(tensors):
        near = tensor.file == before.file and tensor.offset - (before.offset + before.nbytes) <= MAX_GAP_BYTES
        if near:
            groups[-1].append(tensor)
        else:
            groups.append([tensor])
    return groups


def _view(tensor: TensorSpec, buffer_offset: int) -> TensorView:
    return TensorView(tensor.name, buffer_offset, tensor.nbytes, tensor.dtype, tensor.shape)


def _floor(offset: int) -> int:
    return offset // ALIGNMENT * ALIGNMENT


def _ceil(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
