"""What one candidate cannot go below, from sums alone: whether it is worth simulating.

Every resource is busy for so long in a pass, and none of it overlaps with itself. The order of the stages, and so the
waiting that it causes, does not matter here; that is what the simulation is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.problem import Objective, Problem
from llmrun.planner.simulation.cost import NO_LINK, Cost

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Columns:
    """What is counted of each choice: computing in a prefill; computing, reading and copying for a token.

    Then for how long the slot of a ring of one is held, in RAM and on each GPU: from the start of a transfer to the end
    of what it is for.
    """

    n_gpus: int

    PREFILL = 0
    COMPUTE = 1
    READ = 2
    LINK = 3

    def __len__(self) -> int:
        return 4 + 2 * self.n_gpus

    @property
    def host_held(self) -> int:
        """The only slot in RAM."""
        return self.LINK + self.n_gpus

    @property
    def serial(self) -> Bools:
        """``(R,)``: what all stages do one after the other."""
        return np.arange(len(self)) <= self.COMPUTE

    def counts(self, one_on_host: Bools | bool, one_on_gpus: Bools | bool) -> Bools:
        """``(..., R)``: a slot is only held where there is no other one."""
        host, gpus = np.asarray(one_on_host)[..., None], np.asarray(one_on_gpus)[..., None]
        column = np.arange(len(self))
        found: Bools = (column < self.host_held) | (column == self.host_held) & host | (column > self.host_held) & gpus
        return found


@dataclass(frozen=True)
class Floor:
    """Lower bounds on the objective of candidates, as means over the scenarios (a mean of maxima is no less)."""

    problem: Problem

    def seconds(self, candidates: Candidates) -> Floats:
        """``(A,)``."""
        codes, columns = candidates.codes, self._columns
        busy = self._busy[codes + np.arange(codes.shape[1]) * self.problem.allowed.shape[1]].sum(axis=1)
        hops = [hop[codes[:, :-1], codes[:, 1:]].sum(axis=1) for hop in self._hop_s]
        token_s = float(np.mean([cost.token_s for cost in self.problem.costs]))
        counts = columns.counts(candidates.host_slots == 1, candidates.gpu_slots == 1)
        busiest = np.where(counts, busy, 0.0)[:, columns.READ :].max(axis=1)
        period = np.maximum(busy[:, columns.COMPUTE] + hops[1] + token_s, busiest)
        prefill = np.maximum(busy[:, columns.PREFILL] + hops[0] + token_s, self._cold_s)
        first, following = weights(self.problem.objective, self.problem.workload.new_tokens)
        total: Floats = first * prefill + following * period
        return total

    @cached_property
    def _columns(self) -> Columns:
        return Columns(self.problem.costs[0].n_gpus)

    @cached_property
    def _busy(self) -> Floats:
        """``(n x C, R)``: what each choice keeps each resource busy with."""
        return busy_table(self.problem).reshape(-1, len(self._columns))

    @cached_property
    def _hop_s(self) -> tuple[Floats, Floats]:
        """``(C, C)`` each, of a prefill and of a token."""
        costs = self.problem.costs
        return _mean([cost.prefill.hop_s for cost in costs]), _mean([cost.decode.hop_s for cost in costs])

    @cached_property
    def _cold_s(self) -> float:
        """A first pass reads everything; a later one may find it there."""
        if self.problem.objective is Objective.THROUGHPUT:
            return 0.0
        return float(np.mean([cold_read_seconds(cost) for cost in self.problem.costs]))


def weights(objective: Objective, new_tokens: int) -> tuple[float, float]:
    """How often the objective counts the first token and the time of each that follows."""
    if objective is Objective.TPOT:
        return 0.0, 1.0
    return 1.0, 0.0 if objective is Objective.TTFT else float(new_tokens - 1)


def cold_read_seconds(cost: Cost) -> float:
    """From the end of the startup until the disk has read everything once."""
    return max(0.0, cost.lead_s + float(cost.read_s.sum()) - cost.startup_s * cost.startup_rate)


def busy_table(problem: Problem) -> Floats:
    """``(n, C, R)``: seconds that each choice takes of each of ``Columns``, means over the scenarios."""
    costs = problem.costs
    is_cold = problem.objective is not Objective.THROUGHPUT
    tables = (
        [cost.first_s if is_cold else cost.prefill.compute_s for cost in costs],
        [cost.decode.compute_s for cost in costs],
    )
    reads = [cost.read_s[:, None] * cost.streamed for cost in costs]
    links = [[cost.decode.copy_s * (cost.decode.link == gpu) for cost in costs] for gpu in range(costs[0].n_gpus)]
    host = [_held_on_host(cost) for cost in costs]
    rings = [[_held_on_gpu(cost, gpu) for cost in costs] for gpu in range(costs[0].n_gpus)]
    return np.stack([_mean(column) for column in (*tables, reads, *links, host, *rings)], axis=2)


def _held_on_host(cost: Cost) -> Floats:
    kind = cost.decode
    held: Floats = cost.read_s[:, None] + np.where(kind.link == NO_LINK, kind.compute_s, kind.copy_s)
    return held * cost.streamed


def _held_on_gpu(cost: Cost, gpu: int) -> Floats:
    kind = cost.decode
    held: Floats = (kind.copy_s + kind.compute_s) * (kind.link == gpu)
    return held


def _mean(tables: list[Floats]) -> Floats:
    mean: Floats = np.mean(tables, axis=0)
    return mean
