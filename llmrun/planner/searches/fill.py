"""``greedy`` and ``even``: as many resident layers as fit, the streamed ones in one block or spread.

``greedy`` fills in execution order, as Accelerate's ``device_map="auto"`` does: GPU, then RAM, then disk. ``even``
keeps as many, but spreads the streamed layers between the resident ones, whose computation then hides the reading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.checkpoint.kept import kept_unit
from llmrun.checkpoint.spec import ModelSpec, UnitKind, UnitSpec
from llmrun.planner.choices import Candidates, all_choices, stages, to_codes
from llmrun.planner.fit import Fit
from llmrun.planner.memory import account
from llmrun.planner.plan import CPU, DEFAULT_SLOTS, DISK, DeviceMemory, Placement, Slots
from llmrun.settings import Budget, Workload

Choose = Callable[[Sequence[str], int], frozenset[str]]
"""Which ``count`` of the layers, in execution order, are moved to the slower tier."""


def last(layers: Sequence[str], count: int) -> frozenset[str]:
    """The ``count`` last layers."""
    return frozenset(layers[len(layers) - count :])


def spread(layers: Sequence[str], count: int) -> frozenset[str]:
    """``count`` layers at even distances (Bresenham's line)."""
    n_layers = len(layers)
    return frozenset(layers[(2 * i + 1) * n_layers // (2 * count)] for i in range(count))


def fill(
    spec: ModelSpec,
    workload: Workload,
    budget: Budget,
    choose: Choose,
    slots: Slots = DEFAULT_SLOTS,
    kept: str | None = None,
    substitute: str | None = None,
) -> tuple[Placement, ...]:
    """The placement that keeps the most layers on the fast tiers; the leanest one if nothing fits.

    The head is streamed, and its ring slots widened to it, only where that keeps no fewer bytes resident. A GPU that
    cannot hold even the leanest placement is left alone. ``kept``: the format of what stays in RAM for the CPU.
    ``substitute``: that of the copies of what is streamed.
    """
    search = _Search(spec, workload, budget, choose, slots, kept, substitute)
    candidates = [search.run(stream_head=stream_head) for stream_head in (False, True)]
    best = max(candidates, key=search.rank)
    used = account(spec, workload, budget, best, slots)
    full = [memory for memory in used if memory.device != CPU and not memory.fits]
    if not full:
        return best
    smallest = min(full, key=lambda memory: memory.budget_bytes).device
    less = replace(budget, vram_bytes={**budget.vram_bytes, smallest: 0})
    return fill(spec, workload, less, choose, slots, kept, substitute)


@dataclass(frozen=True)
class _Search:
    spec: ModelSpec
    workload: Workload
    budget: Budget
    choose: Choose
    slots: Slots
    kept: str | None
    substitute: str | None

    def run(self, *, stream_head: bool) -> tuple[Placement, ...]:
        """Move layers off the GPUs one by one until those fit, then off the RAM until that fits."""
        start = self._start(stream_head=stream_head)
        on_gpus = tuple(placement for placement in start if placement.device != CPU)
        for device in sorted({placement.device for placement in on_gpus}):
            start = self._evict(start, device, home=CPU)
        return self._embed(self._evict(start, CPU, home=DISK))

    def rank(self, placements: Sequence[Placement]) -> tuple[int, int]:
        """Least over the budget first, then the bytes that need not be read again for every token."""
        resident = sum(self._unit(placement).nbytes for placement in placements if placement.home != DISK)
        over = sum(max(0, memory.nbytes - memory.budget_bytes) for memory in self._account(placements))
        return -over, resident

    def _account(self, placements: Sequence[Placement]) -> tuple[DeviceMemory, ...]:
        return account(self.spec, self.workload, self.budget, placements, self.slots)

    def _fits(self, placements: Sequence[Placement], device: str) -> bool:
        return next(memory for memory in self._account(placements) if memory.device == device).fits

    def _start(self, *, stream_head: bool) -> tuple[Placement, ...]:
        """Every layer resident where it is computed; the embedding on disk, since only its rows are read."""
        device_of = self._segments()
        tail = device_of[self.spec.units[-2].name] if self.spec.n_layers else CPU
        placements = []
        for unit in self.spec.units:
            if unit.kind is UnitKind.EMBEDDING:
                placements.append(Placement(unit.name, DISK, CPU))
            elif unit.kind is UnitKind.LAYER:
                placements.append(self._staying(unit, device_of[unit.name]))
            elif unit.kind is UnitKind.HEAD and stream_head:
                placements.append(Placement(unit.name, DISK, tail, substitute=self.substitute))
            else:
                placements.append(self._staying(unit, tail))
        return tuple(placements)

    def _staying(self, unit: UnitSpec, device: str) -> Placement:
        """A unit that lives where it is computed."""
        changes = device == CPU and kept_unit(unit, self.kept) != unit
        return Placement(unit.name, device, device, kept=self.kept if changes else None)

    def _copy(self, home: str) -> str | None:
        """The format of the copy of what lives there."""
        return self.substitute if home == DISK else None

    def _segments(self) -> dict[str, str]:
        """Contiguous runs of layers, one a GPU, by its share of the video memory; all on the CPU without a GPU."""
        layers = [unit for unit in self.spec.units if unit.kind is UnitKind.LAYER]
        vram_bytes = {device: self.budget.vram_bytes[device] for device in sorted(self.budget.vram_bytes)}
        total_bytes = sum(vram_bytes.values())
        if not total_bytes:
            return {unit.name: CPU for unit in layers}
        devices, ends, seen_bytes = list(vram_bytes), [], 0
        for device in devices:
            seen_bytes += vram_bytes[device]
            ends.append(seen_bytes / total_bytes * len(layers))
        return {
            unit.name: next(device for device, end in zip(devices, ends, strict=True) if index + 0.5 < end)
            for index, unit in enumerate(layers)
        }

    def _evict(self, placements: tuple[Placement, ...], device: str, *, home: str) -> tuple[Placement, ...]:
        """Send to ``home`` the fewest layers that live on ``device`` so that it keeps its budget (all, if none do)."""
        layers = [p.unit for p in placements if p.home == device and self._unit(p).kind is UnitKind.LAYER]
        moved = [self.choose(layers, count) if count else frozenset() for count in range(len(layers) + 1)]
        fits = self._fits_without(placements, moved, device, home)
        gone = moved[int(np.argmax(fits)) if fits.any() else len(layers)]
        copy = self._copy(home)
        return tuple(replace(p, home=home, kept=None, substitute=copy) if p.unit in gone else p for p in placements)

    def _fits_without(
        self, placements: tuple[Placement, ...], moved: Sequence[frozenset[str]], device: str, home: str
    ) -> NDArray[np.bool_]:
        """For each set of layers whether the device keeps its budget once they live at ``home``."""
        choices = self._fit.choices
        codes = np.tile(to_codes(self.spec, choices, placements), (len(moved), 1))
        for stage, unit in enumerate(stages(self.spec)):
            before = choices[codes[0, stage]]
            after = codes[0, stage]
            if before.home == device:
                after = choices.index(replace(before, home=home, kept=None, substitute=self._copy(home)))
            codes[:, stage] = np.where([unit.name in names for names in moved], after, codes[:, stage])
        host, gpu = np.full(len(moved), self.slots.host), np.full(len(moved), self.slots.gpu)
        used = self._fit.used_bytes(Candidates(codes, host, gpu))[:, self._fit.devices.index(device)]
        fits: NDArray[np.bool_] = used <= self.budget.on(device)
        return fits

    @cached_property
    def _fit(self) -> Fit:
        choices = all_choices(sorted(self.budget.vram_bytes), [self.kept] if self.kept else (), self.substitute)
        return Fit(self.spec, self.workload, self.budget, choices)

    def _embed(self, placements: tuple[Placement, ...]) -> tuple[Placement, ...]:
        """Keep the embedding too where there is room, last of all; a tied one is where the head is."""
        head = placements[-1]
        if self.spec.tied_embeddings:
            device = head.home if head.home == head.device else CPU
            return (replace(placements[0], home=head.home, device=device), *placements[1:])
        candidate = (replace(placements[0], home=CPU), *placements[1:])
        return candidate if self._fits(candidate, CPU) else placements

    def _unit(self, placement: Placement) -> UnitSpec:
        return self.spec.unit(placement.unit)
