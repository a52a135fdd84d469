"""Literal plans for tests: one letter a unit."""

from __future__ import annotations

from collections.abc import Mapping

from llmrun.checkpoint import ModelSpec
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import Placement, Plan
from llmrun.settings import Budget, Workload
from llmrun.units import GIB

_LETTERS = {
    "R": ("cpu", "cpu"),  # resident in RAM
    "d": ("disk", "cpu"),  # streamed from disk
    "0": ("gpu:0", "gpu:0"),  # resident on a GPU
    "1": ("gpu:1", "gpu:1"),
    "a": ("cpu", "gpu:0"),  # streamed from RAM to a GPU
    "b": ("cpu", "gpu:1"),
    "x": ("disk", "gpu:0"),  # streamed from disk to a GPU
    "y": ("disk", "gpu:1"),
}


def plan_of(spec: ModelSpec, letters: str, workload: Workload | None = None) -> Plan:
    """A plan with one letter a unit: embedding, rest, the layers, head."""
    workload = workload or Workload(context_tokens=64, prefill_chunk_tokens=16)
    assert len(letters) == len(spec.units)
    placements = tuple(
        Placement(unit.name, *_LETTERS[letter]) for unit, letter in zip(spec.units, letters, strict=True)
    )
    vram_bytes: Mapping[str, int] = {p.device: GIB for p in placements if p.device != "cpu"}
    budget = Budget(GIB, vram_bytes)
    return Plan(
        spec.name, "literal", workload, placements, rings(spec, placements), account(spec, workload, budget, placements)
    )
