"""The certificate: seconds that no candidate within the budget can be below.

A candidate is counted (how many stages of a class make which choice), its memory is exact, and of its time only what no
order of the stages can go below is known. The least of that over all counts is a mixed-integer linear program for HiGHS
(Huangfu & Hall 2018, "Parallelizing the dual revised simplex method"), whose dual bound holds wherever it stops.

With GPUs much depends on how large the slots of the rings are, which that program knows but vaguely where layers are
unlike. So plans are also sorted into cells by their rings, and these branched on (``branch``). The better bound counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.certificate.branch import Branch
from llmrun.planner.certificate.cell_rows import CellRows
from llmrun.planner.certificate.linear import Solution, times
from llmrun.planner.certificate.relaxation import Relaxation, relax
from llmrun.planner.certificate.stage_classes import StageClasses, stage_classes
from llmrun.planner.certificate.time_rows import Floor, TimeRows
from llmrun.planner.plan import DEFAULT_SLOTS, Slots
from llmrun.planner.problem import Objective, Problem
from llmrun.planner.stage_types import stage_types

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ALIKE_TYPES = 3
"""Layers that are all alike, the last of them and the head: classes say as much of them as cells do."""

BRANCH_S = 0.3
"""For the cells, as work that takes about so long."""


@dataclass(frozen=True)
class Bound:
    """A proven lower bound of the objective, and the counts behind it.

    Attributes:
        seconds: infinite where nothing fits.
        classes: ``K`` classes of stages.
        counts: ``(K, C)``, how many stages of a class make each choice; 0 where HiGHS found none.
        slots: of the rings.
    """

    seconds: float
    classes: StageClasses
    counts: Ints
    slots: Slots = DEFAULT_SLOTS

    @property
    def has_counts(self) -> bool:
        """Whether there are counts to make a candidate of."""
        return bool((self.counts.sum(axis=1) == self.classes.size).all())


def lower_bound(problem: Problem) -> Bound:
    """Seconds that no candidate which fits can be below: the mean over the scenarios of the problem."""
    classes = stage_classes(problem)
    relaxation = relax(problem, classes)
    scale_s = _scale_s(problem)
    objective = []
    for cost in problem.costs:
        rows = TimeRows(problem, classes, relaxation, cost)
        for weight, add in zip(weights(problem), (rows.cold, rows.warm, rows.period), strict=True):
            if weight:
                variable = relaxation.counts.program.variable()
                add(Floor(relaxation, variable, weight / len(problem.costs) / scale_s))
                objective.append(times(variable, 1.0))
    bound = _bound(relaxation.counts.program.minimise(*objective), relaxation, scale_s)
    alike = len(stage_types(problem)) <= ALIKE_TYPES
    if alike or not problem.costs[0].n_gpus or np.isinf(bound.seconds):
        return bound
    return replace(bound, seconds=max(bound.seconds, _by_cells(problem, scale_s)))


def _by_cells(problem: Problem, scale_s: float) -> float:
    """Seconds that no candidate in any cell is below."""
    cold, warm, period = (weight / len(problem.costs) / scale_s for weight in weights(problem))
    return Branch(CellRows(problem, stage_types(problem), (cold, warm, period))).least(BRANCH_S) * scale_s


def weights(problem: Problem) -> tuple[float, float, float]:
    """Of the first pass, of a later one and of the period, in the objective."""
    following = float(problem.workload.new_tokens - 1)
    return {
        Objective.TOTAL: (1.0, 0.0, following),
        Objective.TTFT: (1.0, 0.0, 0.0),
        Objective.TPOT: (0.0, 0.0, 1.0),
        Objective.THROUGHPUT: (0.0, 1.0, following),
    }[problem.objective]


def _scale_s(problem: Problem) -> float:
    """Seconds of about the size of the objective, so that the program's numbers are about 1."""
    cold, warm, period = weights(problem)
    total_s = 0.0
    for cost in problem.costs:
        total_s += (cold + warm) * float(cost.prefill.compute_s.min(axis=1).sum())
        total_s += period * float(cost.decode.compute_s.min(axis=1).sum())
    return total_s / len(problem.costs) or 1.0


def _bound(solution: Solution, relaxation: Relaxation, scale_s: float) -> Bound:
    counts, classes = relaxation.counts, relaxation.counts.classes
    if solution.values is None:
        return Bound(solution.bound * scale_s, classes, np.zeros(counts.number.shape, dtype=np.int64))
    chosen = np.rint(solution.values[counts.number]).astype(np.int64)
    host, gpu = (round(1.0 + float(solution.value(ring.more))) for ring in (relaxation.host, relaxation.gpu))
    return Bound(solution.bound * scale_s, classes, chosen, Slots(host, gpu))
