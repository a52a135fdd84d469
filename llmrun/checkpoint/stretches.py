"""Which tensors one read takes together, and the whole blocks of the file that enclose them. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from llmrun.units import KIB

if TYPE_CHECKING:
    from llmrun.checkpoint.spec import TensorSpec

ALIGNMENT = 4096
MAX_GAP_BYTES = 64 * KIB  # reading over a smaller gap costs less than another request


def stretches(tensors: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
    """The tensors by place in their files, those together that one read takes."""
    ordered = sorted(tensors, key=lambda tensor: (tensor.file, tensor.offset))
    groups = [[tensor] for tensor in ordered[:1]]
    for before, tensor in pairwise(ordered):
        near = tensor.file == before.file and tensor.offset - (before.offset + before.nbytes) <= MAX_GAP_BYTES
        if near:
            groups[-1].append(tensor)
        else:
            groups.append([tensor])
    return [tuple(group) for group in groups]


def enclosing(stretch: Sequence[TensorSpec]) -> range:
    """The bytes of the file that are read for it, from a multiple of ``ALIGNMENT`` to another."""
    start = stretch[0].offset // ALIGNMENT * ALIGNMENT
    end = max(tensor.offset + tensor.nbytes for tensor in stretch)
    return range(start, -(-end // ALIGNMENT) * ALIGNMENT)
