"""Candidates made to fit, and room that is left put to use: many at once, by what a byte is worth.

What a choice is worth to a stage is given as seconds saved, ``(n, C)``. Whoever is over a budget gives up first what
saves the fewest seconds a byte; room is taken first by what saves most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates, Choice
from llmrun.planner.guidance.frames import device_bytes
from llmrun.planner.plan import CPU, DISK
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Problem
from llmrun.planner.searches.lean import leanest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ROUNDS = 3  # a ring grows to the largest stage that is streamed: a second look is needed, rarely a third


@dataclass(frozen=True)
class Freedom:
    """How candidates may be changed: see ``Shaper.shape``."""

    guide: Ints
    noise: Floats
    keep: Bools

    def take(self, rows: Ints) -> Freedom:
        """Of some of the candidates."""
        return Freedom(self.guide[rows], self.noise[rows], self.keep[rows])

    @property
    def released(self) -> Freedom:
        """With nothing kept."""
        return replace(self, keep=np.zeros_like(self.keep))


@dataclass(frozen=True)
class Shaper:
    """Fits candidates of one problem into its memory, each by one of ``F`` guides.

    Attributes:
        worth: ``(F, n, C)``, seconds that a choice saves a stage.
        usable: ``(F, n, C)``, what stages are moved to.
    """

    problem: Problem
    worth: Floats
    usable: Bools

    def shape(
        self, candidates: Candidates, guide: Ints, noise: Floats | None = None, keep: Bools | None = None
    ) -> Candidates:
        """As they are if that fits, else with less; then with what room there is filled.

        Args:
            candidates: any.
            guide: ``(A,)``, which guide each follows.
            noise: ``(A, n)``, factors on what a byte is worth; ties are broken at even distances.
            keep: ``(A, n)``, choices that stay as they are if at all possible.
        """
        noise = np.ones(candidates.codes.shape) if noise is None else noise
        keep = np.zeros(candidates.codes.shape, dtype=bool) if keep is None else keep
        freedom = Freedom(guide, noise, keep)
        return self.widen(self.fill(self.repair(candidates, freedom), freedom))

    def repair(self, candidates: Candidates, freedom: Freedom) -> Candidates:
        """Moves stages to leaner choices until all fits; the leanest candidate where that is not enough."""
        rows = np.flatnonzero(~self.problem.fit.fits(candidates))
        if not len(rows):
            return candidates
        now, free = candidates.take(rows), freedom.take(rows)
        for device in [*range(1, len(self.problem.fit.devices)), 0]:
            self._evict(now, device, self._leaving[device], free)
            over = self._over(now, device)[0]
            if len(over):
                (now.gpu_slots if device else now.host_slots)[over] = 1
                last_resort = self._clearing if device else self._leaving
                self._evict(now, device, last_resort[device], free.released)
        bad = ~self.problem.fit.fits(now)
        if bad.any():
            lean = self._lean
            now.codes[bad], now.host_slots[bad], now.gpu_slots[bad] = (
                lean.codes[0],
                lean.host_slots[0],
                lean.gpu_slots[0],
            )
        return candidates.replaced(rows, now)

    def fill(self, candidates: Candidates, freedom: Freedom) -> Candidates:
        """Moves stages to where they are faster, as far as there is room."""
        now, used = candidates, self.problem.fit.used_bytes(candidates)
        for device in [*range(1, len(self.problem.fit.devices)), 0]:
            now, used = self._promote(now, used, device, freedom)
        return now

    def widen(self, candidates: Candidates) -> Candidates:
        """Rings with as many slots as there is room for: none can be slower for it."""
        beside, slot = self.problem.fit.parts_bytes(candidates)
        most = (self.problem.fit.budget_bytes - beside) // np.maximum(slot, 1)
        most = np.where(slot > 0, most, max(HOST_SLOTS))
        host = _largest(most[:, 0], HOST_SLOTS)
        gpu = _largest(most[:, 1:].min(axis=1, initial=max(GPU_SLOTS)), GPU_SLOTS)
        host = np.where(slot[:, 0] > 0, host, candidates.host_slots)
        gpu = np.where((slot[:, 1:] > 0).any(axis=1), gpu, candidates.gpu_slots)
        return Candidates(candidates.codes, host, gpu)

    def _evict(self, now: Candidates, device: int, target: Ints, freedom: Freedom) -> None:
        """In place: from the device goes what is worth least there, until it keeps its budget or nothing can go."""
        for _ in range(ROUNDS):
            rows, over = self._over(now, device)
            if not len(rows):
                return
            codes, free = now.codes[rows], freedom.take(rows)
            to = target[free.guide[:, None], self._stage, codes]
            freed = self._bytes(device, codes) - self._bytes(device, to)
            can = (to >= 0) & (freed > 0) & ~free.keep
            if not can.any():
                return
            loss = (self._value(free, codes) - self._value(free, to)) / np.maximum(freed, 1.0) * free.noise
            order, back = self._order(np.where(can, loss, np.inf))
            sizes = np.take_along_axis(np.where(can, freed, 0.0), order, axis=1)
            goes = np.cumsum(sizes, axis=1) - sizes < over[:, None]
            now.codes[rows] = np.where(np.take_along_axis(goes, back, axis=1) & can, to, codes)

    def _promote(self, now: Candidates, used: Ints, device: int, freedom: Freedom) -> tuple[Candidates, Ints]:
        """What gains most a byte moves to the device, as long as there is room; nothing where it then does not fit."""
        codes = now.codes
        room = (self.problem.fit.budget_bytes - used)[:, device].astype(np.float64)
        to = self._entering[device][freedom.guide[:, None], self._stage, codes]
        size = self._bytes(device, to) - self._bytes(device, codes)
        gain = (self._value(freedom, to) - self._value(freedom, codes)) * freedom.noise
        can = (to >= 0) & (gain > 0) & (size <= room[:, None]) & ~freedom.keep
        rows = np.flatnonzero(can.any(axis=1))
        if not len(rows):
            return now, used
        can, size, gain, to, room = can[rows], size[rows], gain[rows], to[rows], room[rows]
        order, back = self._order(np.where(can, -gain / np.maximum(size, 1.0), np.inf))
        taken = np.cumsum(np.take_along_axis(np.where(can, size, 0.0), order, axis=1), axis=1)
        goes = np.take_along_axis(taken <= room[:, None], back, axis=1) & can
        moved = Candidates(np.where(goes, to, codes[rows]), now.host_slots[rows], now.gpu_slots[rows])
        takes = self.problem.fit.used_bytes(moved)
        kept = np.flatnonzero((takes <= self.problem.fit.budget_bytes).all(axis=1))
        used = used.copy()
        used[rows[kept]] = takes[kept]
        return now.replaced(rows[kept], moved.take(kept)), used

    def _over(self, now: Candidates, device: int) -> tuple[Ints, Floats]:
        """Which candidates exceed the device's budget, and by how much."""
        over = (self.problem.fit.used_bytes(now) - self.problem.fit.budget_bytes)[:, device]
        rows = np.flatnonzero(over > 0)
        return rows, over[rows].astype(np.float64)

    def _order(self, keys: Floats) -> tuple[Ints, Ints]:
        """``(A, n)``: stages by key, ties at even distances; and where each stage comes in that order."""
        order = self._spread[np.argsort(keys[:, self._spread], axis=1, kind="stable")]
        return order, np.argsort(order, axis=1)

    def _best(self, options: Bools) -> Ints:
        """``(F, n, C)``: of the options ``(C, C)`` of each choice the one that is worth most to the stage, or -1."""
        open_ = options & self.usable[:, :, None, :]
        found: Ints = np.argmax(np.where(open_, self.worth[:, :, None, :], -np.inf), axis=3)
        return np.where(open_.any(axis=3), found, -1)

    def _bytes(self, device: int, codes: Ints) -> Floats:
        found: Floats = self._device_bytes[self._stage, codes, device]
        return found

    def _value(self, freedom: Freedom, codes: Ints) -> Floats:
        found: Floats = self.worth[freedom.guide[:, None], self._stage, codes]
        return found

    @cached_property
    def _stage(self) -> Ints:
        return np.arange(self.worth.shape[1])

    @cached_property
    def _device_bytes(self) -> Floats:
        return device_bytes(self.problem)

    @cached_property
    def _lean(self) -> Candidates:
        return leanest(self.problem)

    @cached_property
    def _spread(self) -> Ints:
        """The stages in an order of which every beginning is spread over all (multiples of the golden ratio)."""
        return np.argsort((np.arange(1, self.worth.shape[1] + 1) * 0.6180339887498949) % 1)

    @cached_property
    def _leaving(self) -> list[Ints]:
        return self._targets(_leaves)

    @cached_property
    def _clearing(self) -> list[Ints]:
        return self._targets(_clears)

    @cached_property
    def _entering(self) -> list[Ints]:
        return self._targets(_enters)

    def _targets(self, test: Callable[[Choice, Choice, str], bool]) -> list[Ints]:
        """For each device: where each choice goes best, see ``_best``."""
        return [self._best(self._pairs(test, device)) for device in self.problem.fit.devices]

    def _pairs(self, test: Callable[[Choice, Choice, str], bool], device: str) -> Bools:
        """``(C, C)``: whether a choice may become another."""
        choices = self.problem.choices
        return np.array([[test(before, after, device) for after in choices] for before in choices])


def _leaves(before: Choice, after: Choice, device: str) -> bool:
    """The weights leave the device for a slower tier, or become fewer; computed as before or, off a GPU, on the CPU."""
    slower = (DISK,) if device == CPU else (CPU, DISK)
    onto_cpu = device != CPU and _used(after) == {CPU}
    fewer_bits = before.home == after.home and before.kept is None and after.kept is not None
    leaves = after.home in slower or fewer_bits
    return before.home == device and leaves and (_alike(before, after) or onto_cpu)


def _clears(before: Choice, after: Choice, device: str) -> bool:
    """Nothing of it is on the GPU any more."""
    return device in _used(before) | {before.home} and _used(after) == {CPU} and after.home in (CPU, DISK)


def _enters(before: Choice, after: Choice, device: str) -> bool:
    """The weights come to the device from a slower tier."""
    slower = (DISK,) if device == CPU else (CPU, DISK)
    return after.home == device and before.home in slower and (device != CPU or _alike(before, after))


def _alike(one: Choice, other: Choice) -> bool:
    return (one.device, one.prefill_device) == (other.device, other.prefill_device)


def _used(choice: Choice) -> set[str]:
    return {choice.device, choice.prefill_device}


def _largest(most: Ints, options: Sequence[int]) -> Ints:
    """The largest option that is not above ``most``; the smallest where there is none."""
    at = np.searchsorted(np.array(options), most, side="right") - 1
    return np.array(options)[np.maximum(at, 0)]
