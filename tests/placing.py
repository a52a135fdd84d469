"""Literal plans for tests, one letter a unit, and the runtime opened on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from tiny_spec import LETTERS

from llmrun.checkpoint import ModelSpec
from llmrun.engine.forward import Forward
from llmrun.models.skeleton import build_skeleton
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import Placement, Plan
from llmrun.runtime.accelerator import Accelerator, EmulatedAccelerator
from llmrun.runtime.host import HostWeights
from llmrun.runtime.kv_cache import KVCache
from llmrun.runtime.residency import Residency
from llmrun.settings import Budget, Workload
from llmrun.units import GIB

_PLACES = {letter: place for place, letter in LETTERS.items()}
TIED_EMBEDDING = {"R": "R", "d": "d", "0": "0", "1": "1", "a": "R", "x": "d"}


def plan_of(spec: ModelSpec, letters: str, workload: Workload | None = None) -> Plan:
    """A plan with one letter a unit: embedding, rest, the layers, head."""
    workload = workload or Workload(context_tokens=64, prefill_chunk_tokens=16)
    assert len(letters) == len(spec.units)
    placements = tuple(Placement(unit.name, *_PLACES[letter]) for unit, letter in zip(spec.units, letters, strict=True))
    vram_bytes: Mapping[str, int] = {p.device: GIB for p in placements if p.device != "cpu"}
    budget = Budget(GIB, vram_bytes)
    return Plan(
        spec.name, "literal", workload, placements, rings(spec, placements), account(spec, workload, budget, placements)
    )


def letters_for(spec: ModelSpec, letters: str) -> str:
    return TIED_EMBEDDING[letters[-1]] + letters[1:] if spec.tied_embeddings else letters


def emulated(device: str) -> Accelerator:
    return EmulatedAccelerator(GIB)


@contextmanager
def opened(
    spec: ModelSpec,
    plan: Plan,
    accelerator: Callable[[str], Accelerator] = emulated,
    cancel: threading.Event | None = None,
) -> Iterator[tuple[Forward, KVCache, HostWeights]]:
    host = HostWeights(spec, plan)
    host.start()
    accelerators = {device: accelerator(device) for device in plan.gpus}
    cache = KVCache(spec, plan, accelerators)
    residency = Residency(spec, plan, host, accelerators, cache, lambda event: None, cancel or threading.Event())
    try:
        chunk_tokens = plan.workload.prefill_chunk_tokens
        with torch.inference_mode():
            yield Forward(spec, build_skeleton(spec, residency), residency, cache, chunk_tokens), cache, host
    finally:
        residency.close()
        host.close()
