"""``milp``: the counts behind the bound made a real candidate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.certificate.bound import Bound, lower_bound, weights
from llmrun.planner.choices import Candidates, join
from llmrun.planner.guidance.pace import paced_codes
from llmrun.planner.guidance.shape import Shaper
from llmrun.planner.problem import Effort, Outcome, Problem
from llmrun.planner.searches.arrange import counts_to_candidates
from llmrun.planner.searches.lean import leanest
from llmrun.planner.searches.over_budget import over_budget

Floats = NDArray[np.float64]

OFFSETS = (0.0, 0.25, 0.5, 0.75, 1.0)


def milp(problem: Problem, effort: Effort) -> Outcome:
    """The best arrangement of the bound's counts; the leanest candidate where no arrangement is better.

    Args:
        problem: what to plan.
        effort: how many arrangements are simulated at most; ``seed`` does not matter.

    Raises:
        PlanError: no candidate fits.
    """
    lean = leanest(problem)
    if not problem.fit.fits(lean)[0]:
        raise over_budget(problem, lean)
    candidates = join([lean, rounded(problem, lower_bound(problem))])
    candidates = candidates.take(np.arange(min(len(candidates), max(1, effort.evaluations))))
    best = int(np.argmin(problem.seconds(candidates)))
    return Outcome(candidates.take(np.array([best])), len(candidates))


def rounded(problem: Problem, bound: Bound) -> Candidates:
    """Candidates with the bound's counts, in several arrangements, made to fit; perhaps none."""
    none = leanest(problem).take(np.empty(0, dtype=np.int64))
    if not bound.has_counts:
        return none
    drawn = join([_spread(problem, bound), _paced(problem, bound)])
    shaper = Shaper(problem, _worth(problem)[None], problem.allowed[None])
    fitting = shaper.shape(drawn, np.zeros(len(drawn), dtype=np.int64))
    found = join([drawn, fitting])
    return found.take(np.flatnonzero(problem.fit.fits(found)))


def _spread(problem: Problem, bound: Bound) -> Candidates:
    return counts_to_candidates(problem, bound.classes.of_stage, bound.counts, [bound.slots])


def _paced(problem: Problem, bound: Bound) -> Candidates:
    codes = np.array([paced_codes(problem.costs[0], bound.classes.of_stage, bound.counts, at) for at in OFFSETS])
    return Candidates(codes, np.full(len(codes), bound.slots.host), np.full(len(codes), bound.slots.gpu))


def _worth(problem: Problem) -> Floats:
    """``(n, C)``: seconds that a choice saves a stage against the worst, all resources weighing the same."""
    cold, warm, period = weights(problem)
    total: Floats = np.zeros(problem.allowed.shape)
    for cost in problem.costs:
        reads_s = cost.read_s[:, None] * cost.streamed
        total += (cold + warm) * (cost.prefill.compute_s + cost.prefill.copy_s)
        total += period * (cost.decode.compute_s + cost.decode.copy_s + reads_s)
    saved: Floats = total.max() - total
    return saved
