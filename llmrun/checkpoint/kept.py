"""A unit whose plain matrices are kept in RAM in another format: which of its tensors change, and how they then lie.

The planner counts with it and the runtime allocates by it. What is kept so is written nowhere: the file stays as it is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from llmrun.checkpoint.recipe import TRANSPOSED_FAMILIES, recipe, target_format
from llmrun.checkpoint.spec import ModelSpec, UnitKind, UnitSpec
from llmrun.formats import packed_bytes

MEMORY = ""
"""The ``file`` of tensors that are in memory only."""

ALIGNMENT_BYTES = 64


@lru_cache(maxsize=4096)
def kept_unit(unit: UnitSpec, name: str | None) -> UnitSpec:
    """``unit`` as it is kept in the format of that name (as ``--format`` has it); itself where nothing of it changes.

    Its tensors lie one after another in memory of their own, each at a multiple of 64 bytes.

    Raises:
        UsageError: ``bad-option``, no format has that name.
    """
    if name is None or unit.kind not in (UnitKind.LAYER, UnitKind.HEAD):
        return unit
    wanted = recipe(name)
    formats = [target_format(tensor, unit.kind, wanted) for tensor in unit.tensors]
    if not any(formats):
        return unit
    tensors, offset = [], 0
    for tensor, fmt in zip(unit.tensors, formats, strict=True):
        dtype = fmt.name if fmt else tensor.dtype
        nbytes = packed_bytes(tensor.shape, dtype) if fmt else tensor.nbytes
        tensors.append(replace(tensor, file=MEMORY, offset=offset, nbytes=nbytes, dtype=dtype))
        offset += -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return replace(unit, tensors=tuple(tensors))


def kept_model(spec: ModelSpec, name: str | None) -> ModelSpec:
    """``spec`` with every unit as ``kept_unit`` has it.

    Raises:
        UsageError: ``bad-option``, no format has that name.
    """
    return replace(spec, units=tuple(kept_unit(unit, name) for unit in spec.units)) if can_keep(spec, name) else spec


def layer_shape(spec: ModelSpec, name: str | None = None, *, fine: bool = True) -> str:
    """``ModelSpec.layer_shape`` of layers kept in that format, and of products computed so."""
    shape = kept_model(spec, name).layer_shape
    return shape if fine else f"{shape}, states rounded"


def can_keep(spec: ModelSpec, name: str | None) -> bool:
    """Whether anything of a model changes in that format.

    Raises:
        UsageError: ``bad-option``, no format has that name.
    """
    return any(is_kept(spec, unit, name) for unit in spec.units)


def is_kept(spec: ModelSpec, unit: UnitSpec, name: str | None) -> bool:
    """Whether anything of a unit of the model changes in that format.

    Raises:
        UsageError: ``bad-option``, no format has that name.
    """
    return spec.model_type not in TRANSPOSED_FAMILIES and kept_unit(unit, name) != unit
