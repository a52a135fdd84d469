"""Copies in fewer bits of what streams: the model that drafts takes these in its place.

They are made of the bytes that come in for the first tokens that are decoded. Rounding takes longer than reading, and
computing one token far less: so it is spread over as many passes as hide it, and nobody waits long for a token.
"""

from __future__ import annotations

import torch

from llmrun.checkpoint.layout import UnitLayout
from llmrun.checkpoint.spec import ModelSpec
from llmrun.models.dtypes import compute_dtype
from llmrun.planner.plan import CPU, Plan
from llmrun.runtime.kept import KeptWeights
from llmrun.runtime.views import unit_views


class Substitutes:
    """What has been made so far.

    Args:
        kept: allocates and rounds.
    """

    def __init__(self, spec: ModelSpec, plan: Plan, kept: KeptWeights) -> None:
        self._dtype = compute_dtype(spec, CPU)
        self._kept = kept
        drafting = plan.prediction.drafting if plan.prediction else None
        passes = drafting.making_passes if drafting else 1
        wanted = [placement.unit for placement in plan.placements if placement.substitute]
        self._due = {unit: 1 + number % passes for number, unit in enumerate(wanted)}
        self._made: dict[str, dict[str, torch.Tensor]] = {}
        self._passes = 0

    def begin(self) -> None:
        """A pass that decodes begins."""
        self._passes += 1

    def get(self, unit: str) -> dict[str, torch.Tensor] | None:
        """The tensors of a unit's copy; ``None``: it has none, or not yet."""
        return self._made.get(unit)

    def make(self, unit: str, memory: torch.Tensor, layout: UnitLayout) -> None:
        """Copy a unit whose bytes have come in, if it is its turn."""
        if unit not in self._made and self._passes >= self._due.get(unit, self._passes + 1):
            self._made[unit] = unit_views(*self._kept.keep(unit, memory, layout), self._dtype, fine=False)
