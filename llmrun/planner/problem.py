"""What every planner is given, and what it gives back: one function type for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from llmrun.checkpoint.kept import can_keep
from llmrun.checkpoint.spec import ModelSpec
from llmrun.hardware.speeds import Speeds
from llmrun.planner.choices import Candidates, Choice, all_choices, allowed
from llmrun.planner.fit import Fit
from llmrun.planner.simulation.cost import Cost, cost
from llmrun.planner.simulation.simulate import Times, simulate
from llmrun.settings import LOSSLESS, Budget, Precision, Workload

Floats = NDArray[np.float64]

HOST_SLOTS = (1, 2, 3, 4, 6, 8)
GPU_SLOTS = (1, 2, 3)

CANDIDATE_S, STAGE_S = 5e-5, 1e-6
"""What a search takes for a candidate and for each stage of it, once for each scenario and once more (measured)."""

BEGIN_S = 0.03
"""Before it simulates: relaxed plans, for each choice that there is."""

USED = 0.75
"""Of the time that it may take: machines differ, and work is counted here, not time."""

MIN_EVALUATIONS = 200


class Objective(StrEnum):
    """What a plan is to make short."""

    TOTAL = "total"  # a first request: its first token and all that follow
    TTFT = "ttft"
    TPOT = "tpot"
    THROUGHPUT = "throughput"  # requests one after another: the weights that stay are there already

    def seconds(self, times: Times, new_tokens: int) -> Floats:
        """``(A,)``: what is minimised."""
        following = (new_tokens - 1) * times.tpot_s
        if self is Objective.TTFT:
            return times.ttft_s
        if self is Objective.TPOT:
            return times.tpot_s
        return (times.ttft_s if self is Objective.TOTAL else times.warm_ttft_s) + following


@dataclass(frozen=True)
class Problem:
    """A model, a workload and a budget on a host of known speeds.

    Attributes:
        costs: one for each scenario of the speeds; the objective is the mean over them.
        substitute: the format of copies to draft with, of all that is streamed; passes are without drafts here.
    """

    spec: ModelSpec
    workload: Workload
    budget: Budget
    choices: tuple[Choice, ...]
    allowed: NDArray[np.bool_]  # (n, C)
    costs: tuple[Cost, ...]
    fit: Fit
    objective: Objective = Objective.TOTAL
    precision: Precision = LOSSLESS
    substitute: str | None = None

    def seconds(self, candidates: Candidates) -> Floats:
        """``(A,)``: the objective of each candidate, infinite where it does not fit."""
        total = np.full(len(candidates), np.inf)
        rows = np.flatnonzero(self.fit.fits(candidates))
        if len(rows):
            total[rows] = self.unconstrained_seconds(candidates.take(rows))
        return total

    def unconstrained_seconds(self, candidates: Candidates) -> Floats:
        """``(A,)``: the objective of each candidate, whether it fits or not."""
        runs = [simulate(cost, candidates) for cost in self.costs]
        mean: Floats = np.mean([self.objective.seconds(run, self.workload.new_tokens) for run in runs], axis=0)
        return mean


@dataclass(frozen=True)
class Effort:
    """How long to search, as work and not as time: the same inputs then give the same plan on every machine."""

    seed: int = 0
    evaluations: int = 2000  # simulated candidates, at most
    bound_s: float = 0.0  # no candidate is shorter; 0 where that is not known
    stop_gap: float = 0.001  # near enough to the bound, as a share of it

    @classmethod
    def for_seconds(cls, planner_s: float, problem: Problem, *, seed: int = 0, bound_s: float = 0.0) -> Effort:
        """What a search can do in about ``planner_s`` seconds on two cores of a small machine."""
        n, kinds = len(problem.allowed), 1 + len(problem.costs)
        each_s = kinds * (CANDIDATE_S + STAGE_S * n)
        if kinds > 2:  # half of them are simulated for one scenario only
            each_s = (each_s + 2 * (CANDIDATE_S + STAGE_S * n)) / 2
        search_s = USED * planner_s - BEGIN_S * len(problem.choices)
        return cls(seed, max(MIN_EVALUATIONS, int(search_s / each_s)), bound_s)


@dataclass(frozen=True)
class Outcome:
    """What a planner found: one candidate (``len(best) == 1``) and the candidates it simulated for it."""

    best: Candidates
    evaluations: int


Planner = Callable[[Problem, Effort], Outcome]
"""All planners are of this type.

Raises:
    PlanError: no candidate fits.
"""


def make_problem(
    spec: ModelSpec,
    workload: Workload,
    budget: Budget,
    scenarios: tuple[Speeds, ...],
    objective: Objective = Objective.TOTAL,
    precision: Precision = LOSSLESS,
    substitute: str | None = None,
) -> Problem:
    """The problem for the GPUs that are both in the budget and measured (in every scenario alike)."""
    measured = {device.device for device in scenarios[0].devices}
    gpus = sorted(gpu for gpu, nbytes in budget.vram_bytes.items() if nbytes and gpu in measured)
    choices = all_choices(gpus, [name for name in precision.kept_formats if can_keep(spec, name)], substitute)
    fine = precision.quality.fine
    return Problem(
        spec=spec,
        workload=workload,
        budget=budget,
        choices=choices,
        allowed=allowed(spec, choices, precision),
        costs=tuple(cost(spec, speeds, workload, choices, gpus, fine=fine) for speeds in scenarios),
        fit=Fit(spec, workload, budget, choices),
        objective=objective,
        precision=precision,
        substitute=substitute,
    )
