"""What all searches share: candidates simulated at most once and counted, the best of them kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.guidance.floor import Floor
from llmrun.planner.problem import Effort, Outcome, Problem
from llmrun.planner.searches.lean import leanest

Floats = NDArray[np.float64]

DRAWN = 3
"""A search that draws so many times what it may simulate, because most need not be, has seen enough."""

MARGIN = 1e-9  # of a gain, as a share: less is rounding


@dataclass
class Search:
    """The state of one search.

    Its best is the ``first`` candidate, not yet simulated, until something is; the leanest if none is given. Where that
    does not fit, nothing does.
    """

    problem: Problem
    effort: Effort
    best_s: float = np.inf
    evaluations: int = 0
    drawn: int = 0  # simulated or not
    first: Candidates | None = None
    best: Candidates = field(init=False)
    hopeless: bool = field(init=False)
    _seen: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.best = self.first or leanest(self.problem)
        self.hopeless = not self.problem.fit.fits(self.best)[0]

    @cached_property
    def floor(self) -> Floor:
        """What a candidate cannot go below."""
        return Floor(self.problem)

    @property
    def left(self) -> int:
        """Candidates that may still be simulated."""
        return self.effort.evaluations - self.evaluations

    @property
    def done(self) -> bool:
        """Whether all is spent, or the best is near enough to the bound, or nothing fits."""
        near = self.best_s <= self.effort.bound_s * (1 + self.effort.stop_gap)
        return self.left <= 0 or near or self.hopeless or self.drawn > DRAWN * self.effort.evaluations

    @property
    def outcome(self) -> Outcome:
        """What has been found."""
        return Outcome(self.best, self.evaluations)

    def weigh(self, candidates: Candidates, limit: int | None = None, below_s: float | None = None) -> Floats:
        """``(A,)``: the objective of those that are simulated, else infinite.

        Simulated are those that fit, are new and could be below ``below_s`` (the best, if not given); where that is
        more than ``limit`` or than may be simulated at all, the most promising of them.
        """
        below_s = self.best_s if below_s is None else below_s
        self.drawn += len(candidates)
        rows = np.flatnonzero(self.problem.fit.fits(candidates))
        floor_s = self.floor.seconds(candidates.take(rows))
        promising = np.flatnonzero(floor_s < below_s * (1 - MARGIN))
        order = promising[np.argsort(floor_s[promising], kind="stable")]
        return self._simulate(candidates, rows[order], limit)

    def weigh_all(self, candidates: Candidates) -> Floats:
        """``(A,)``: the same for all that fit, in their order, as many as may be simulated."""
        return self._simulate(candidates, np.flatnonzero(self.problem.fit.fits(candidates)), None)

    def _simulate(self, candidates: Candidates, rows: NDArray[np.int64], limit: int | None) -> Floats:
        seconds = np.full(len(candidates), np.inf)
        chosen = self._new(candidates, rows, min(self.left, self.left if limit is None else limit))
        if len(chosen):
            seconds[chosen] = self.problem.unconstrained_seconds(candidates.take(chosen))
            self.evaluations += len(chosen)
            self._keep(candidates, seconds)
        return seconds

    def _new(self, candidates: Candidates, rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
        """The first ``limit`` of the rows that were not simulated before."""
        keys = np.column_stack([candidates.codes, candidates.host_slots, candidates.gpu_slots]).astype(np.uint8)
        chosen: list[int] = []
        for row in rows.tolist():
            if len(chosen) >= limit:
                break
            key = keys[row].tobytes()
            if key not in self._seen:
                self._seen.add(key)
                chosen.append(row)
        return np.array(chosen, dtype=np.int64)

    def _keep(self, candidates: Candidates, seconds: Floats) -> None:
        row = int(np.argmin(seconds))
        if seconds[row] < self.best_s * (1 - MARGIN) or not np.isfinite(self.best_s):
            self.best, self.best_s = candidates.take(np.array([row])), float(seconds[row])
