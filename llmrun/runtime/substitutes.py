"""Copies in fewer bits of what streams: the model that drafts takes these in its place.

They are made of the bytes that come in for the first tokens that are decoded. Rounding takes longer than reading, and
computing one token far less: so it is spread over as many passes as hide it, some rows of each unit in each of them.

What the first prompt's tokens met a matrix with says how much each of its columns matters (``quantize.importance``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from llmrun.checkpoint.layout import UnitLayout
from llmrun.checkpoint.spec import ModelSpec
from llmrun.models.dtypes import compute_dtype
from llmrun.planner.plan import CPU, Plan
from llmrun.quantize.importance import MeanSquares
from llmrun.runtime.kept import EQUAL, KeptWeights
from llmrun.runtime.views import unit_views

LEAST_TOKENS = 16
"""Of a prompt, to go by them; the head sees one."""


class Substitutes:
    """What has been made so far.

    Args:
        kept: allocates and rounds.
    """

    def __init__(self, spec: ModelSpec, plan: Plan, kept: KeptWeights) -> None:
        self._dtype = compute_dtype(spec, CPU)
        self._kept = kept
        drafting = plan.prediction.drafting if plan.prediction else None
        self._parts = drafting.making_passes if drafting else 1
        self._parts_made = {placement.unit: 0 for placement in plan.placements if placement.substitute}
        self._made: dict[str, dict[str, torch.Tensor]] = {}
        self._squares: dict[str, MeanSquares] = {}

    def get(self, unit: str) -> dict[str, torch.Tensor] | None:
        """The tensors of a unit's copy; ``None``: it has none, or not yet."""
        return self._made.get(unit)

    def meets(self, unit: str) -> Callable[[str, torch.Tensor], None] | None:
        """Takes what the matrices of a unit meet in a prompt, by name; ``None`` where no copy will be made of it."""
        if self._parts_made.get(unit, self._parts) > 0:
            return None
        return self._squares.setdefault(unit, MeanSquares()).add

    def make(self, unit: str, memory: torch.Tensor, layout: UnitLayout) -> None:
        """The next part of a unit's copy, of bytes that have come in; nothing where it has one, or is to have none."""
        part = self._parts_made.get(unit, self._parts)
        if part == self._parts:
            return
        squares = self._squares.get(unit)
        importance = squares.importance(LEAST_TOKENS) if squares else EQUAL
        copy = self._kept.keep(unit, memory, layout, part, self._parts, importance)
        self._parts_made[unit] = part + 1
        if part + 1 == self._parts:
            self._squares.pop(unit, None)
            self._made[unit] = unit_views(*copy, self._dtype, fine=False)
