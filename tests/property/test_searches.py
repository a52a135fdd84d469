"""What holds for every search, whatever the model, the host and the budget."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from made_problem import PRECISIONS, draw_problem

from llmrun.planner.certificate.bound import lower_bound
from llmrun.planner.guidance.floor import Floor
from llmrun.planner.problem import Effort
from llmrun.planner.searches.aco import aco
from llmrun.planner.searches.exhaustive import exhaustive
from llmrun.planner.searches.lean import leanest
from llmrun.planner.searches.random_search import random_search
from llmrun.planner.searches.seeds import even, greedy

some = settings(deadline=None, max_examples=25)
drawn = st.integers(0, 10**6)
precisions = st.sampled_from(PRECISIONS)


@some
@given(drawn, st.integers(1, 30), st.integers(0, 2), st.booleans(), st.integers(2, 300), precisions)
def test_aco_is_no_worse_than_greedy_and_even(seed, n_layers, n_gpus, robust, evaluations, precision):
    problem = draw_problem(seed, n_layers, n_gpus, robust=robust, precision=precision)
    effort = Effort(seed, evaluations)
    found_s = problem.seconds(aco(problem, effort).best)[0]
    assert found_s <= problem.seconds(greedy(problem, effort).best)[0]
    assert found_s <= problem.seconds(even(problem, effort).best)[0]


@some
@given(drawn, st.integers(1, 30), st.integers(0, 2), st.sampled_from([aco, random_search, greedy, even]), precisions)
def test_what_is_found_fits_if_anything_does(seed, n_layers, n_gpus, planner, precision):
    problem = draw_problem(seed, n_layers, n_gpus, precision=precision)
    outcome = planner(problem, Effort(seed, 100))
    assert problem.fit.fits(outcome.best)[0] == problem.fit.fits(leanest(problem))[0]
    allowed = problem.allowed[np.arange(len(problem.allowed)), outcome.best.codes[0]]
    assert allowed.all()
    assert outcome.evaluations <= 100


@some
@given(drawn, st.integers(1, 3), st.integers(0, 2), st.sampled_from([aco, random_search]), precisions)
def test_nothing_is_below_the_best_of_all(seed, n_layers, n_gpus, planner, precision):
    problem = draw_problem(seed, n_layers, n_gpus, precision=precision)
    best = exhaustive(problem, Effort()).best
    found_s = problem.seconds(planner(problem, Effort(seed, 100)).best)[0]
    assert problem.seconds(best)[0] <= found_s * (1 + 1e-12)  # sums in another order
    assert Floor(problem).seconds(best)[0] <= found_s * (1 + 1e-9)
    assert lower_bound(problem).seconds <= problem.seconds(best)[0]
