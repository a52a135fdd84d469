"""The trade between the first token and the tokens that follow, and what is said where pymoo is missing."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from made_problem import draw_problem, every_candidate

from llmrun.errors import PlanError, UsageError
from llmrun.planner.certificate.bound import lower_bound
from llmrun.planner.problem import Effort, Objective
from llmrun.planner.searches import pareto
from llmrun.planner.searches.pareto import nsga2, pareto_front
from llmrun.planner.simulation.simulate import simulate
from llmrun.settings import Budget

EFFORT = Effort(evaluations=600)
TINY = 89  # two layers and a head, one GPU: few enough to try everything


def test_without_pymoo_the_hint_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(pareto, "find_spec", lambda name: None)
    for search in (pareto_front, nsga2):
        with pytest.raises(UsageError) as caught:
            search(draw_problem(1, 4, 1), EFFORT)
        assert caught.value.reference == "missing-extra"
        assert caught.value.hint == "`pip install 'llmrun[pareto]'`"


def test_every_point_is_better_in_one_goal_than_the_point_before():
    pytest.importorskip("pymoo")
    problem = draw_problem(5, 16, 1)
    front = pareto_front(problem, EFFORT)
    assert all(one.ttft_s < other.ttft_s and one.tpot_s > other.tpot_s for one, other in pairwise(front))
    for point in front:
        assert problem.fit.fits(point.candidate)[0]
        times = simulate(problem.costs[0], point.candidate)
        assert (point.ttft_s, point.tpot_s) == (times.ttft_s[0], times.tpot_s[0])
        assert point.decode_tokens_per_s == 1 / point.tpot_s


def test_on_a_tiny_problem_no_candidate_beats_the_front():
    pytest.importorskip("pymoo")
    problem = draw_problem(TINY, 2, 1)
    every = every_candidate(problem)
    every = every.take(np.flatnonzero(problem.fit.fits(every)))
    times = simulate(problem.costs[0], every)
    front = pareto_front(problem, Effort(evaluations=3000))
    assert len(every) > 100
    for ttft_s, tpot_s in zip(times.ttft_s, times.tpot_s, strict=True):
        assert any(point.ttft_s <= ttft_s * 1.01 and point.tpot_s <= tpot_s * 1.01 for point in front)


@pytest.mark.parametrize("objective", Objective)
def test_the_planner_takes_the_point_that_is_best_for_the_objective(objective):
    pytest.importorskip("pymoo")
    problem = replace(draw_problem(5, 16, 1), objective=objective)
    found, again = (nsga2(problem, EFFORT) for _ in range(2))
    seconds = problem.seconds(found.best)[0]
    assert lower_bound(problem).seconds <= seconds
    assert seconds == min(problem.seconds(point.candidate)[0] for point in pareto_front(problem, EFFORT))
    assert (found.best.codes == again.best.codes).all()
    assert 0 < found.evaluations <= EFFORT.evaluations


def test_where_nothing_fits_it_says_so():
    pytest.importorskip("pymoo")
    problem = draw_problem(5, 16, 0)
    budget = Budget(1)
    with pytest.raises(PlanError):
        nsga2(replace(problem, budget=budget, fit=replace(problem.fit, budget=budget)), EFFORT)
