"""Better candidates near a good one: many small changes at once, the best of them taken, until none helps.

A change that takes more memory than there is makes others give way, and what it sets free is used (``shape``), so that
a step may be of one stage and still be one between good plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates, join
from llmrun.planner.guidance.guide import Guide
from llmrun.planner.guidance.sequence import spread_out
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Problem
from llmrun.planner.searches.search import MARGIN, Search

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Random = np.random.Generator

NEIGHBOURS = 320  # drawn for a step
SIMULATED = 128  # of them, the most promising
MERGED = 10  # gains of a step that are tried together
ROUND_STEPS = 2
PATIENCE = 2  # steps without a gain


@dataclass(frozen=True)
class Place:
    """Where a local search is: one candidate, its seconds, and the frame by whose prices it is changed."""

    candidate: Candidates
    seconds: float
    frame: int


@dataclass(frozen=True)
class LocalSearch:
    """Steps from a candidate to the best of those around it."""

    guide: Guide
    random: Random

    def tournament(self, search: Search, starts: Sequence[Place]) -> list[Place]:
        """A few steps from each, the better half goes on, until one is left at its best; all, the best first."""
        places = sorted(starts, key=lambda place: place.seconds)
        out: list[Place] = []
        while len(places) > 1 and not search.done:
            for _ in range(ROUND_STEPS):
                places = [self.step(search, place) for place in places]
            places.sort(key=lambda place: place.seconds)
            half = (len(places) + 1) // 2
            places, out = places[:half], places[half:] + out
        return [*(self.improve(search, place) for place in places[:1]), *places[1:], *out]

    def improve(self, search: Search, start: Place) -> Place:
        """Until ``PATIENCE`` steps brought nothing, or the search is done."""
        place, failed = start, 0
        while failed < PATIENCE and not search.done:
            after = self.step(search, place)
            failed = 0 if after.seconds < place.seconds else failed + 1
            place = after
        return place

    def step(self, search: Search, place: Place) -> Place:
        """To the best neighbour, if that is better."""
        if search.done:
            return place
        found = self.around(place)
        seconds = search.weigh(found, SIMULATED, below_s=place.seconds)
        merged = self._merged(place, found, seconds)
        found = join([found, merged])
        seconds = np.concatenate([seconds, search.weigh(merged, below_s=place.seconds)])
        row = int(np.argmin(seconds))
        if seconds[row] >= place.seconds * (1 - MARGIN):
            return place
        return Place(found.take(np.array([row])), float(seconds[row]), place.frame)

    def _merged(self, place: Place, found: Candidates, seconds: Floats) -> Candidates:
        """The best two of the gains together, the best three, ...: most changes do not touch each other."""
        order = np.argsort(seconds, kind="stable")[:MERGED]
        order = order[seconds[order] < place.seconds * (1 - MARGIN)]
        base = place.candidate
        codes, rows = base.codes[0].copy(), []
        for row in order.tolist():
            free = codes == base.codes[0]
            codes = np.where(free, found.codes[row], codes)
            rows.append(codes)
        count = max(0, len(rows) - 1)
        if not count:
            return base.take(np.empty(0, dtype=np.int64))
        merged = Candidates(np.array(rows[1:]), np.repeat(base.host_slots, count), np.repeat(base.gpu_slots, count))
        return self.guide.shaper.shape(merged, np.full(count, place.frame))

    def around(self, place: Place) -> Candidates:
        """Neighbours that fit."""
        current = place.candidate
        moves: list[tuple[Callable[[Ints, int], Ints], float]] = [
            (self._change, 0.35),
            (self._swap, 0.25),
            (self._shift, 0.1),
            (self._extend, 0.15),
            (self._repeat, 0.05),
            (self._respread, 0.05),
        ]
        codes = current.codes[0]
        parts = [move(codes, max(4, int(share * NEIGHBOURS))) for move, share in moves]
        drawn = np.concatenate(parts)
        drawn = np.where(self._allowed[np.arange(len(codes)), drawn], drawn, codes)
        drawn = np.unique(drawn, axis=0)
        count = len(drawn)
        near = Candidates(drawn, np.repeat(current.host_slots, count), np.repeat(current.gpu_slots, count))
        keep = drawn != codes
        rings = self._other_rings(current)
        keep = np.concatenate([keep, np.zeros((len(rings), len(codes)), dtype=bool)])
        both = join([near, rings])
        return self.guide.shaper.shape(both, np.full(len(both), place.frame), keep=keep)

    def _change(self, codes: Ints, count: int) -> Ints:
        """One stage chooses something else; all such changes where they are few."""
        stages, choices = np.nonzero(self._allowed & (np.arange(self._allowed.shape[1]) != codes[:, None]))
        picked = np.arange(len(stages))
        if len(stages) > count:
            picked = self.random.choice(len(stages), count, replace=False)
        changed = np.tile(codes, (len(picked), 1))
        changed[np.arange(len(picked)), stages[picked]] = choices[picked]
        return changed

    def _swap(self, codes: Ints, count: int) -> Ints:
        """Two stages, mostly near each other, take each other's choices."""
        one = self.random.integers(len(codes), size=count)
        distance = np.where(self.random.random(count) < 0.5, self.random.geometric(0.3, count), len(codes))
        other = np.where(distance < len(codes), one + distance, self.random.integers(len(codes), size=count))
        other = np.minimum(other, len(codes) - 1)
        changed = np.tile(codes, (count, 1))
        rows = np.arange(count)
        changed[rows, one], changed[rows, other] = codes[other], codes[one]
        return changed

    def _shift(self, codes: Ints, count: int) -> Ints:
        """A run of stages takes the choices of those one before or behind; the one that falls out comes in again."""
        changed = np.tile(codes, (count, 1))
        for row, (begin, end) in zip(changed, self._runs(len(codes), count), strict=True):
            row[begin:end] = np.roll(row[begin:end], self.random.choice([-2, -1, 1, 2]))
        return changed

    def _extend(self, codes: Ints, count: int) -> Ints:
        """A run of stages all choose what its first does, or one with the same devices."""
        changed = np.tile(codes, (count, 1))
        for row, (begin, end) in zip(changed, self._runs(len(codes), count), strict=True):
            row[begin:end] = row[begin] if self.random.random() < 0.5 else self.random.choice(self._allowed.shape[1])
        return changed

    def _repeat(self, codes: Ints, count: int) -> Ints:
        """Every stage with one choice takes another: all that are streamed stay, all prefills go to the GPU, ..."""
        n_choices = self._allowed.shape[1]
        pairs = [(a, b) for a in np.unique(codes).tolist() for b in range(n_choices) if a != b]
        picked = self.random.permutation(len(pairs))[:count]
        return np.array([np.where(codes == pairs[k][0], pairs[k][1], codes) for k in picked]).reshape(-1, len(codes))

    def _respread(self, codes: Ints, count: int) -> Ints:
        """Within a run of stages with one device, the choices at even distances."""
        changed = np.tile(codes, (count, 1))
        for row, (begin, end) in zip(changed, self._runs(len(codes), count), strict=True):
            begin, end = (0, len(codes) - 1) if self.random.random() < 0.3 else (begin, end)
            for device in np.unique(self._device_of[row[begin:end]]).tolist():
                inside = begin + np.flatnonzero(self._device_of[row[begin:end]] == device)
                row[inside] = spread_out(row[inside], self.random.random(len(self._device_of)))
        return changed

    def _runs(self, n: int, count: int) -> list[tuple[int, int]]:
        lengths = np.minimum(1 + self.random.geometric(min(0.5, 4 / n), count), n)
        begins = self.random.integers(0, n - lengths + 1)
        return [(int(b), int(b + length)) for b, length in zip(begins, lengths, strict=True)]

    def _other_rings(self, current: Candidates) -> Candidates:
        """The same stages with other rings."""
        hosts, gpus = np.meshgrid(HOST_SLOTS[:4], GPU_SLOTS if self._device_of.any() else GPU_SLOTS[:1])
        return Candidates(np.repeat(current.codes, hosts.size, axis=0), hosts.ravel(), gpus.ravel())

    @cached_property
    def _allowed(self) -> Bools:
        return self._problem.allowed

    @cached_property
    def _device_of(self) -> Ints:
        return self._problem.costs[0].decode.device

    @property
    def _problem(self) -> Problem:
        return self.guide.problem
