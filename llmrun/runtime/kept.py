"""Units that are in RAM in fewer bits than the file has, to stay so or to draft with: rounded when they come in."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch

from llmrun.checkpoint.kept import kept_unit
from llmrun.checkpoint.layout import UnitLayout, layout
from llmrun.checkpoint.spec import ModelSpec
from llmrun.formats import weight_format
from llmrun.hardware.buffer import allocate
from llmrun.planner.plan import Plan
from llmrun.quantize.rounding import quantise_bytes

EQUAL: Final[Mapping[str, torch.Tensor]] = MappingProxyType({})
"""No column matters more than another."""


class KeptWeights:
    """The memory of a plan's rounded units, one region allocated once, touched as they are rounded."""

    def __init__(self, spec: ModelSpec, plan: Plan) -> None:
        kept = [placement for placement in plan.placements if placement.rounded_to]
        self._layouts = {p.unit: layout(kept_unit(spec.unit(p.unit), p.rounded_to)) for p in kept}
        region = torch.frombuffer(allocate(self.nbytes), dtype=torch.uint8) if kept else torch.empty(0)
        sizes = [there.nbytes for there in self._layouts.values()]
        self._memory = dict(zip(self._layouts, region.split(sizes) if kept else (), strict=True))

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return sum(there.nbytes for there in self._layouts.values())

    def keep(
        self,
        unit: str,
        memory: torch.Tensor,
        read: UnitLayout,
        part: int = 0,
        parts: int = 1,
        importance: Mapping[str, torch.Tensor] = EQUAL,
    ) -> tuple[torch.Tensor, UnitLayout]:
        """A unit whose bytes, as they were read, are in ``memory``: where it is kept, and how it lies there.

        Of ``parts`` that its rows are divided into, ``part`` alone is rounded now. Columns count as ``importance`` has
        it, by name of tensor; those of a tensor that is not there count alike.
        """
        kept, own = self._layouts[unit], self._memory[unit]
        for before, after in zip(read.views, kept.views, strict=True):
            source, target = (
                where[view.buffer_offset :][: view.nbytes] for where, view in ((memory, before), (own, after))
            )
            if before.dtype == after.dtype:
                if part == 0:
                    target.copy_(source)
                continue
            rows, columns = before.shape
            begin, end = rows * part // parts, rows * (part + 1) // parts
            fmt, plain = weight_format(after.dtype), weight_format(before.dtype)
            some, there = (where.view(rows, -1)[begin:end] for where in (source, target))
            quantise_bytes(fmt, some, plain, columns, there, importance.get(before.name))
        return own, kept
