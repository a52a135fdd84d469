"""``nsga2``: the trade between a short wait for the first token and many tokens a second, by pymoo's NSGA-II.

Deb, Pratap, Agarwal & Meyarivan 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II". The first
generation holds what the ``milp`` planner finds for either goal, since a random placement hardly ever fits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrun.errors import UsageError
from llmrun.planner.choices import Candidates, join
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Effort, Objective, Outcome, Problem
from llmrun.planner.searches.lean import leanest
from llmrun.planner.searches.milp import milp
from llmrun.planner.searches.over_budget import over_budget
from llmrun.planner.simulation.simulate import simulate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POPULATION = 60
SEEDED = (Objective.TTFT, Objective.TPOT, Objective.TOTAL)


@dataclass(frozen=True)
class ParetoPoint:
    """A candidate (``len(candidate) == 1``) that no other one beats in both goals, means over the scenarios."""

    candidate: Candidates
    ttft_s: float
    tpot_s: float

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens a second in decode, of one sequence."""
        return 1 / self.tpot_s


def pareto_front(problem: Problem, effort: Effort) -> tuple[ParetoPoint, ...]:
    """The front that the search found, from the shortest wait for a first token to the most tokens a second.

    Raises:
        UsageError: ``missing-extra``, pymoo is not installed.
        PlanError: no candidate fits.
    """
    _need_pymoo()
    lean = leanest(problem)
    if not problem.fit.fits(lean)[0]:
        raise over_budget(problem, lean)
    seeds = [lean, *(milp(replace(problem, objective=goal), effort).best for goal in SEEDED)]
    return _front(problem, join([*seeds, _search(problem, effort, join(seeds))]))


def nsga2(problem: Problem, effort: Effort) -> Outcome:
    """The point of the front that is best for the problem's own objective.

    Raises:
        UsageError: ``missing-extra``, pymoo is not installed.
        PlanError: no candidate fits.
    """
    front = join([point.candidate for point in pareto_front(problem, effort)])
    best = int(np.argmin(problem.seconds(front)))
    return Outcome(front.take(np.array([best])), effort.evaluations)


def _need_pymoo() -> None:
    if find_spec("pymoo") is None:
        raise UsageError(
            "missing-extra",
            "the planner nsga2 needs pymoo, which is not installed",
            hint="`pip install 'llmrun[pareto]'`",
        )


def _front(problem: Problem, found: Candidates) -> tuple[ParetoPoint, ...]:
    """Those that fit and that nothing beats in both goals."""
    fitting = found.take(np.flatnonzero(problem.fit.fits(found)))
    ttft_s, tpot_s = _goals(problem, fitting).T
    points: list[ParetoPoint] = []
    for row in np.lexsort((tpot_s, ttft_s)):
        if not points or tpot_s[row] < points[-1].tpot_s:
            points.append(ParetoPoint(fitting.take(np.array([row])), float(ttft_s[row]), float(tpot_s[row])))
    return tuple(points)


def _goals(problem: Problem, candidates: Candidates) -> Floats:
    """``(A, 2)``: TTFT and time per output token."""
    runs = [simulate(cost, candidates) for cost in problem.costs]
    means = [np.mean([times.ttft_s for times in runs], axis=0), np.mean([times.tpot_s for times in runs], axis=0)]
    return np.stack(means, axis=1)


def _search(problem: Problem, effort: Effort, seeds: Candidates) -> Candidates:
    """The last generation."""
    genes = _Genes(problem)
    generations = max(1, effort.evaluations // POPULATION)
    return genes.decode(_last_generation(genes, effort.seed, generations, genes.encode(seeds)))


def _last_generation(genes: _Genes, seed: int, count: int, seeds: Ints) -> Ints:
    """pymoo asks what a generation is worth and is told; returns those that survive, ``(POPULATION, genes)``."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem as Space
    from pymoo.operators.crossover.pntx import TwoPointCrossover
    from pymoo.operators.mutation.pm import PolynomialMutation
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.problems.static import StaticProblem

    space = Space(n_var=genes.count, n_obj=2, n_ieq_constr=1, xl=0, xu=genes.options - 1, vtype=int)
    algorithm: Any = NSGA2(
        pop_size=POPULATION,
        sampling=genes.first_generation(np.random.default_rng(seed), seeds),
        crossover=TwoPointCrossover(repair=RoundingRepair()),  # neighbours stay together
        mutation=PolynomialMutation(prob_var=2 / genes.count, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.setup(space, termination=("n_gen", count), seed=seed, verbose=False)
    while algorithm.has_next():
        asked = algorithm.ask()
        goals, over = genes.weigh(asked.get("X"))
        Evaluator().eval(StaticProblem(space, F=goals, G=over), asked)
        algorithm.tell(infills=asked)
    survivors: Ints = algorithm.pop.get("X").astype(np.int64)
    return survivors


@dataclass(frozen=True)
class _Genes:
    """A candidate as a row of numbers: for each stage which of its allowed choices, then which host and GPU slots."""

    problem: Problem

    @property
    def options(self) -> Ints:
        """How many values each gene has."""
        stages = self.problem.allowed.sum(axis=1)
        return np.array([*stages, len(HOST_SLOTS), len(GPU_SLOTS)], dtype=np.int64)

    @property
    def count(self) -> int:
        """Genes of a candidate."""
        return len(self.problem.allowed) + 2

    @property
    def _codes(self) -> Ints:
        """``(n, C)``: the allowed codes of each stage first."""
        return np.argsort(~self.problem.allowed, axis=1, kind="stable")

    def decode(self, genes: Ints) -> Candidates:
        """Rows of genes as candidates."""
        codes = self._codes[np.arange(self.count - 2), genes[:, :-2]]
        return Candidates(codes, np.array(HOST_SLOTS)[genes[:, -2]], np.array(GPU_SLOTS)[genes[:, -1]])

    def encode(self, candidates: Candidates) -> Ints:
        """Candidates as rows of genes."""
        ranks = np.argsort(self._codes, axis=1)
        stages = ranks[np.arange(self.count - 2), candidates.codes]
        host = np.searchsorted(HOST_SLOTS, candidates.host_slots)
        gpu = np.searchsorted(GPU_SLOTS, candidates.gpu_slots)
        return np.column_stack([stages, host, gpu]).astype(np.int64)

    def first_generation(self, random: np.random.Generator, seeds: Ints) -> Ints:
        """The seeds, then seeds with some genes drawn anew."""
        parents = seeds[random.integers(len(seeds), size=POPULATION - len(seeds))]
        drawn = random.integers(self.options, size=parents.shape)
        share = random.uniform(0.0, 0.5, size=(len(parents), 1))
        children = np.where(random.random(parents.shape) < share, drawn, parents)
        return np.concatenate([seeds, children])

    def weigh(self, genes: NDArray[Any]) -> tuple[Floats, Floats]:
        """The goals ``(A, 2)``, and by what share of a budget each is over it ``(A, 1)``."""
        candidates = self.decode(genes.astype(np.int64))
        fit = self.problem.fit
        over = (fit.used_bytes(candidates) - fit.budget_bytes) / np.maximum(fit.budget_bytes, 1)
        return _goals(self.problem, candidates), over.max(axis=1, keepdims=True)
