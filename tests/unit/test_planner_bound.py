"""The bound is below every candidate, infinite where nothing fits, and met where the order does not matter."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hosts import SPEEDS
from made_problem import any_candidates, draw_problem, every_candidate
from shapes import llama_8b, llama_405b
from tiny_spec import model

from llmrun.errors import PlanError
from llmrun.planner.certificate.bound import lower_bound
from llmrun.planner.problem import Effort, Objective, make_problem
from llmrun.planner.searches.milp import milp, rounded
from llmrun.planner.simulation.simulate import simulate
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

SMALL = [(seed, 1 + seed % 5, 0) for seed in range(60)] + [(seed, 2, 1) for seed in range(60, 95)]
SMALL += [(seed, 1, 2) for seed in range(95, 110)]


@pytest.mark.parametrize("part", range(10))
def test_it_is_below_the_best_of_all_candidates_and_infinite_only_where_none_fits(part):
    for seed, n_layers, n_gpus in SMALL[part::10]:
        problem = draw_problem(seed, n_layers, n_gpus)
        best_s = problem.seconds(every_candidate(problem)).min()
        bound_s = lower_bound(problem).seconds
        assert bound_s <= best_s, seed
        assert np.isinf(bound_s) == np.isinf(best_s), seed


def test_among_the_small_ones_some_fit_and_some_do_not():
    finite = [np.isfinite(lower_bound(draw_problem(*small)).seconds) for small in SMALL[::3]]
    assert 0.5 < np.mean(finite) < 1


def test_it_is_near_the_best_of_all_candidates_more_often_than_not():
    gaps = []
    for seed, n_layers, n_gpus in SMALL[:60:2]:
        problem = draw_problem(seed, n_layers, n_gpus)
        best_s = problem.seconds(every_candidate(problem)).min()
        if np.isfinite(best_s):
            gaps.append(best_s / lower_bound(problem).seconds - 1)
    assert np.median(gaps) < 0.005


@pytest.mark.parametrize(("seed", "n_layers", "n_gpus"), [(1, 30, 0), (2, 24, 1), (3, 20, 2), (4, 40, 1), (5, 16, 2)])
def test_it_is_below_candidates_of_larger_problems(seed, n_layers, n_gpus):
    for objective in Objective:
        problem = replace(draw_problem(seed, n_layers, n_gpus), objective=objective)
        bound = lower_bound(problem)
        seconds = problem.seconds(any_candidates(problem, seed, 2000))
        own = problem.seconds(rounded(problem, bound))
        assert np.isfinite(seconds).any()
        assert len(own)
        assert bound.seconds <= min(seconds.min(), own.min())


def test_of_a_robust_problem_it_is_below_the_mean_over_the_scenarios():
    problem = draw_problem(6, 12, 1, robust=True)
    assert len(problem.costs) == 5
    found = milp(problem, Effort()).best
    alone = [lower_bound(replace(problem, costs=(cost,))).seconds for cost in problem.costs]
    bound_s = lower_bound(problem).seconds
    assert np.mean(alone) * 0.999 <= bound_s <= problem.seconds(found)[0]


def made(spec, ram_bytes, vram_bytes=None, objective=Objective.TPOT, speeds=SPEEDS):
    return make_problem(spec, Workload(), Budget(ram_bytes, vram_bytes or {}), (speeds,), objective)


def test_with_room_for_all_it_is_the_time_of_the_computation():
    problem = made(model([100 * MIB] * 12), 16 * GIB)
    found = milp(problem, Effort()).best
    chain_s = problem.costs[0].decode.compute_s[:, 0].sum() + problem.costs[0].token_s
    assert lower_bound(problem).seconds == pytest.approx(chain_s, rel=1e-3)
    assert problem.seconds(found)[0] == pytest.approx(chain_s)


def test_with_a_slow_disk_it_is_the_time_to_read_what_does_not_fit():
    disk = replace(SPEEDS.disk, bytes_per_s=replace(SPEEDS.disk.bytes_per_s, p50=1e8))
    slow = replace(SPEEDS, disk=disk, reading_slowdown=1.0)
    problem = made(model([100 * MIB] * 12), 1400 * MIB, speeds=slow)
    found = milp(problem, Effort()).best
    streamed = problem.costs[0].streamed[found.codes[0]]
    assert 0 < streamed.sum() < 13
    read_s = problem.costs[0].read_s[streamed].sum()
    assert lower_bound(problem).seconds == pytest.approx(read_s, rel=1e-2)
    assert problem.seconds(found)[0] == pytest.approx(read_s, rel=1e-2)


def test_more_memory_never_raises_it():
    spec = model([100 * MIB] * 12, windows=[None] * 12)
    bounds = [lower_bound(made(spec, ram * MIB, {"gpu:0": 2 * GIB})).seconds for ram in range(800, 3200, 400)]
    assert all(more <= less * 1.001 for less, more in pairwise(bounds))
    assert np.isfinite(bounds).any()


def test_the_milp_planner_is_near_the_bound_for_a_large_model():
    problem = make_problem(llama_405b(), Workload(), Budget(256 * GIB, {"gpu:0": 24 * GIB}), (SPEEDS,))
    bound = lower_bound(problem)
    found = milp(problem, Effort())
    assert found.evaluations <= Effort().evaluations
    assert bound.seconds <= problem.seconds(found.best)[0] < 1.01 * bound.seconds


def test_the_milp_planner_says_what_does_not_fit():
    problem = make_problem(llama_8b(), Workload(), Budget(GIB // 2), (SPEEDS,))
    assert lower_bound(problem).seconds == np.inf
    assert not len(rounded(problem, lower_bound(problem)))
    with pytest.raises(PlanError) as caught:
        milp(problem, Effort())
    assert caught.value.reference == "plan-over-budget"


def test_the_same_problem_has_the_same_bound_and_the_same_plan():
    one, other = (draw_problem(7, 15, 1) for _ in range(2))
    first, second = lower_bound(one), lower_bound(other)
    assert first.seconds == second.seconds
    assert (first.counts == second.counts).all()
    assert (milp(one, Effort()).best.codes == milp(other, Effort()).best.codes).all()


def test_nothing_is_printed(capfd):
    for seed in range(5):
        lower_bound(draw_problem(seed, 10, 1))
    assert capfd.readouterr() == ("", "")


def test_counts_are_kept_by_every_arrangement():
    problem = made(llama_8b(), 12 * GIB, {"gpu:0": 8 * GIB})
    bound = lower_bound(problem)
    codes = rounded(problem, bound).codes
    assert len(codes) > 1
    assert any((np.bincount(row, minlength=7) == bound.counts.sum(axis=0)).all() for row in codes)
    assert simulate(problem.costs[0], milp(problem, Effort()).best).tpot_s[0] > 0
