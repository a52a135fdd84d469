"""Better counts before any order: steps of one or two stages at once, judged by sums.

The relaxed plan leaves a few stages split between choices, and rounding them one by one misses what two together can
do: one gives up its place, another takes it. All pairs of changes are looked at in one table; nothing is simulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.guidance.floor import Columns, busy_table, cold_read_seconds, weights
from llmrun.planner.guidance.frames import device_bytes, ring_users
from llmrun.planner.problem import Objective, Problem
from llmrun.planner.stage_types import StageTypes, stage_types

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

STEPS = 24
CHANGES = 220  # of which all pairs are looked at
SMOOTH = 0.02  # share of the idle resources' time in what is minimised: among equals, the one with more to spare


@dataclass(frozen=True)
class Polisher:
    """Improves candidates of one problem."""

    problem: Problem

    def polish(self, candidate: Candidates, random: np.random.Generator) -> Candidates:
        """One candidate that fits, at least as good by its sums."""
        now = candidate
        failed = 0
        for _ in range(STEPS):
            stages, choices = self._changes(now.codes[0], random)
            after = self._best_pair(now, stages, choices)
            failed = failed + 1 if after is None else 0
            now = now if after is None else after
            if failed == (1 if len(stages) < CHANGES else 2):
                break
        return now

    def _changes(self, codes: Ints, random: np.random.Generator) -> tuple[Ints, Ints]:
        """Stages and what they may change to: two stages stand for all of a type that choose alike."""
        alike = self._types.of_stage * self.problem.allowed.shape[1] + codes
        order = random.permutation(len(codes))
        _, first = np.unique(alike[order], return_index=True)
        rest = np.delete(order, first)
        _, second = np.unique(alike[rest], return_index=True)
        stages = np.concatenate([order[first], rest[second]])
        at, choices = np.nonzero(self.problem.allowed[stages])
        changes = np.flatnonzero(choices != codes[stages[at]])
        if len(changes) > CHANGES:
            changes = random.choice(changes, CHANGES, replace=False)
        return stages[at[changes]], choices[changes]

    def _best_pair(self, now: Candidates, stages: Ints, choices: Ints) -> Candidates | None:
        """The pair of changes (or the one, paired with none) that is best and fits; none if none is better."""
        codes = now.codes[0]
        every = np.arange(len(codes))
        busy = self._busy[every, codes].sum(axis=0)
        more_s = self._with_none(self._busy[stages, choices] - self._busy[stages, codes[stages]])
        more_bytes = self._with_none(self._more_bytes(now, stages, choices))
        room = (self.problem.fit.budget_bytes - self.problem.fit.used_bytes(now)[0]).astype(np.float64)
        fits = (more_bytes[:, None, :] + more_bytes[None, :, :] <= room).all(axis=2)
        who = np.append(stages, [-1])
        fits &= who[:, None] != who[None, :]
        one, other = np.nonzero(np.triu(fits))
        value = self._value(now, busy + more_s[one] + more_s[other])
        for pick in np.argsort(value, kind="stable")[:4]:
            if value[pick] >= self._value(now, busy[None])[0] * (1 - 1e-9):
                return None
            after = self._changed(now, stages, choices, (int(one[pick]), int(other[pick])))
            if self.problem.fit.fits(after)[0]:
                return after
        return None

    def _changed(self, now: Candidates, stages: Ints, choices: Ints, picks: tuple[int, ...]) -> Candidates:
        codes = now.codes.copy()
        for pick in picks:
            if pick < len(stages):
                codes[0, stages[pick]] = choices[pick]
        return Candidates(codes, now.host_slots, now.gpu_slots)

    def _more_bytes(self, now: Candidates, stages: Ints, choices: Ints) -> Floats:
        """``(M, D)``: what each change takes more on each device, rings that grow for it included."""
        codes = now.codes[0]
        more: Floats = self._bytes[stages, choices] - self._bytes[stages, codes[stages]]
        weight = self.problem.fit.weight_bytes
        for device, users in enumerate(self._ring_users):
            slot_bytes = (weight * users[codes]).max()
            slots = now.host_slots[0] if device == 0 else now.gpu_slots[0]
            more[:, device] += slots * np.maximum(weight[stages] * users[choices] - slot_bytes, 0)
        return more

    def _value(self, now: Candidates, busy: Floats) -> Floats:
        """``(M,)``: the floor of sums ``(M, R)``, and a little of all that is busy."""
        columns = Columns(self.problem.costs[0].n_gpus)
        counts = columns.counts(bool(now.host_slots[0] == 1), bool(now.gpu_slots[0] == 1))
        token = np.where(counts, busy, 0.0)[:, columns.COMPUTE :]
        first, following = weights(self.problem.objective, self.problem.workload.new_tokens)
        prefill = np.maximum(busy[:, columns.PREFILL], self._cold_s)
        found: Floats = first * prefill + following * (token.max(axis=1) + SMOOTH * token.mean(axis=1))
        return found

    def _with_none(self, table: Floats) -> Floats:
        extended: Floats = np.concatenate([table, np.zeros((1, table.shape[1]))])
        return extended

    @cached_property
    def _types(self) -> StageTypes:
        return stage_types(self.problem)

    @cached_property
    def _busy(self) -> Floats:
        return busy_table(self.problem)

    @cached_property
    def _bytes(self) -> Floats:
        return device_bytes(self.problem)

    @cached_property
    def _ring_users(self) -> list[Bools]:
        return ring_users(self.problem)

    @cached_property
    def _cold_s(self) -> float:
        if self.problem.objective is Objective.THROUGHPUT:
            return 0.0
        return float(np.mean([cold_read_seconds(cost) for cost in self.problem.costs]))
