"""Literal plans for tests, one letter a unit, and the runtime opened on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from labelled_devices import LabelledAccelerator, LabelledDevices
from tiny_spec import LETTERS

from llmrun.checkpoint import ModelSpec
from llmrun.engine.forward import Forward
from llmrun.events import Event
from llmrun.models.skeleton import build_skeleton
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import DEFAULT_SLOTS, Placement, Plan, Slots
from llmrun.runtime.accelerator import Accelerator, EmulatedAccelerator
from llmrun.runtime.host import HostWeights
from llmrun.runtime.kv_cache import KVCache
from llmrun.runtime.residency import Residency
from llmrun.settings import LOSSLESS, Budget, Precision, Workload
from llmrun.units import GIB

PLACES = {letter: place for place, letter in LETTERS.items()} | {
    "p": ("cpu", "cpu", "gpu:0"),  # computed from RAM for a token, streamed to a GPU in a prefill
    "q": ("cpu", "cpu", "gpu:1"),
    "v": ("disk", "cpu", "gpu:0"),  # streamed from disk, to another device in a prefill
    "w": ("disk", "cpu", "gpu:1"),
    "8": ("cpu", "cpu", None, "q8"),  # resident in RAM in fewer bits
    "4": ("cpu", "cpu", None, "q4"),
    "s": ("disk", "cpu", None, None, "q8"),  # streamed, with a copy in fewer bits to draft with
}
TIED_EMBEDDING = {
    "R": "R",
    "8": "R",
    "4": "R",
    "d": "d",
    "s": "d",
    "0": "0",
    "1": "1",
    "a": "R",
    "b": "R",
    "x": "d",
    "y": "d",
}


def plan_of(
    spec: ModelSpec,
    letters: str,
    workload: Workload | None = None,
    slots: Slots = DEFAULT_SLOTS,
    precision: Precision = LOSSLESS,
) -> Plan:
    """A plan with one letter a unit: embedding, rest, the layers, head."""
    assert len(letters) == len(spec.units)
    placements = [Placement(unit.name, *PLACES[letter]) for unit, letter in zip(spec.units, letters, strict=True)]
    workload = workload or Workload(context_tokens=64, prefill_chunk_tokens=16)
    return replace(plan_with(spec, placements, workload, slots), precision=precision)


def plan_with(spec: ModelSpec, placements: Sequence[Placement], workload: Workload, slots: Slots) -> Plan:
    devices = {device for p in placements for device in (p.device, p.prefill_device) if device != "cpu"}
    budget = Budget(GIB, dict.fromkeys(devices, GIB))
    return Plan(
        spec.name,
        "literal",
        workload,
        tuple(placements),
        rings(spec, placements, slots),
        account(spec, workload, budget, placements, slots),
    )


def letters_for(spec: ModelSpec, letters: str) -> str:
    return TIED_EMBEDDING[letters[-1]] + letters[1:] if spec.tied_embeddings else letters


def bytes_to_read(spec: ModelSpec, host: HostWeights, unit: str) -> int:
    """Of the whole blocks that direct I/O asks for, what lies before the end of the file."""
    return sum(
        min(extent.nbytes, spec.path(extent.file).stat().st_size - extent.file_offset)
        for extent in host.layout(unit).extents
    )


def emulated(device: str) -> Accelerator:
    return EmulatedAccelerator(GIB)


def labelled(device: str) -> LabelledAccelerator:
    """Give the numbers of an emulated one, and refuse operands on several devices."""
    return LabelledAccelerator(GIB, device)


@contextmanager
def opened(
    spec: ModelSpec,
    plan: Plan,
    accelerator: Callable[[str], Accelerator] = emulated,
    cancel: threading.Event | None = None,
    emit: Callable[[Event], None] = lambda event: None,
) -> Iterator[tuple[Forward, KVCache, HostWeights]]:
    host = HostWeights(spec, plan)
    host.start()
    accelerators = {device: accelerator(device) for device in plan.gpus}
    cache = KVCache(spec, plan, accelerators)
    residency = Residency(spec, plan, host, accelerators, cache, emit, cancel or threading.Event())
    try:
        skeleton = build_skeleton(spec, residency)
        with _computing(accelerators.values()):
            yield Forward(spec, skeleton, residency, cache, plan.workload.prefill_chunk_tokens), cache, host
    finally:
        residency.close()
        host.close()


@contextmanager
def _computing(accelerators: Iterable[Accelerator]) -> Iterator[None]:
    """With one thread: these matrices are done before a second one is awake, and on a busy host it slows them down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    labels = any(isinstance(accelerator, LabelledAccelerator) for accelerator in accelerators)
    try:
        with LabelledDevices() if labels else torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
