"""The searches on small problems: against everything tried out, against each other, and against what they promise."""

from dataclasses import replace

import numpy as np
import pytest
from made_problem import any_candidates, draw_problem, every_candidate

from llmrun.errors import UsageError
from llmrun.planner.guidance.floor import Floor
from llmrun.planner.guidance.guide import make_guide
from llmrun.planner.guidance.sequence import diffuse, go_round, spread_out
from llmrun.planner.guidance.shape import Shaper
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Effort, Objective
from llmrun.planner.searches.aco import aco
from llmrun.planner.searches.exhaustive import exhaustive
from llmrun.planner.searches.lean import leanest
from llmrun.planner.searches.random_search import random_search
from llmrun.planner.searches.search import DRAWN, Search
from llmrun.planner.searches.seeds import even, filled, greedy
from llmrun.planner.searches.trails import AcoParameters, Trails
from llmrun.planner.stage_types import stage_types
from llmrun.settings import Budget

LITTLE_EFFORT = Effort(evaluations=600)
SMALL = [(seed, n_layers, n_gpus) for seed in range(14) for n_layers, n_gpus in ((6, 0), (4, 1), (2 + seed % 2, 2))]


def seconds(problem, outcome):
    assert len(outcome.best) == 1
    return problem.seconds(outcome.best)[0]


def hopeless(problem):
    budget = Budget(1)
    return replace(problem, budget=budget, fit=replace(problem.fit, budget=budget))


@pytest.mark.parametrize("seed", range(6))
def test_exhaustive_finds_the_best_of_all(seed):
    problem = draw_problem(seed, 3, seed % 2)
    best_s = problem.seconds(every_candidate(problem)).min()
    assert seconds(problem, exhaustive(problem, Effort())) == best_s


@pytest.mark.parametrize(("seed", "n_layers", "n_gpus"), SMALL)
def test_aco_finds_what_exhaustive_finds(seed, n_layers, n_gpus):
    problem = draw_problem(seed, n_layers, n_gpus)
    best_s = seconds(problem, exhaustive(problem, Effort()))
    found_s = seconds(problem, aco(problem, LITTLE_EFFORT))
    assert found_s == best_s or best_s <= found_s <= best_s * 1.001


@pytest.mark.parametrize("planner", [aco, random_search])
@pytest.mark.parametrize("n_gpus", [0, 1, 2])
def test_the_same_seed_finds_the_same_with_the_same_work(planner, n_gpus):
    problem = draw_problem(3, 12, n_gpus)
    one, other = (planner(problem, LITTLE_EFFORT) for _ in range(2))
    assert one.evaluations == other.evaluations
    for name in ("codes", "host_slots", "gpu_slots"):
        assert np.array_equal(getattr(one.best, name), getattr(other.best, name))


@pytest.mark.parametrize("planner", [aco, random_search])
@pytest.mark.parametrize("evaluations", [1, 2, 7, 100, 333])
def test_no_more_is_simulated_than_was_allowed(planner, evaluations, monkeypatch):
    problem = draw_problem(5, 10, 1)
    simulated = 0
    weigh = type(problem).unconstrained_seconds

    def counted(self, candidates):
        nonlocal simulated
        simulated += len(candidates)
        return weigh(self, candidates)

    monkeypatch.setattr(type(problem), "unconstrained_seconds", counted)
    outcome = planner(problem, Effort(evaluations=evaluations))
    assert outcome.evaluations == simulated <= evaluations


def test_a_search_ends_when_the_bound_is_near():
    problem = draw_problem(5, 10, 1)
    outcome = aco(problem, Effort(evaluations=2000))
    best_s = seconds(problem, outcome)
    near = aco(problem, Effort(evaluations=2000, bound_s=best_s / 1.5, stop_gap=0.6))
    assert near.evaluations < outcome.evaluations
    assert seconds(problem, near) <= best_s / 1.5 * 1.6


def test_a_search_that_finds_nothing_new_ends():
    problem = draw_problem(1, 1, 0)
    outcome = random_search(problem, Effort(evaluations=10**4))
    assert outcome.evaluations < 10**4


@pytest.mark.parametrize("planner", [aco, random_search, exhaustive, greedy, even])
def test_where_nothing_fits_the_leanest_comes_back(planner):
    problem = hopeless(draw_problem(4, 3, 0))
    outcome = planner(problem, LITTLE_EFFORT)
    assert seconds(problem, outcome) == np.inf
    assert np.array_equal(outcome.best.codes, leanest(problem).codes)


def test_seeds_are_not_lost():
    problem = draw_problem(7, 8, 1)
    best = aco(problem, Effort(evaluations=1500)).best
    with_seed = aco(problem, Effort(evaluations=40), seeds=best)
    assert seconds(problem, with_seed) <= problem.seconds(best)[0]


def test_exhaustive_says_when_there_is_too_much():
    with pytest.raises(UsageError) as caught:
        exhaustive(draw_problem(0, 40, 1), Effort())
    assert caught.value.reference == "bad-option"
    assert "41 stages" in caught.value.message


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("robust", [False, True])
def test_no_candidate_is_below_its_floor(objective, robust):
    problem = replace(draw_problem(11, 7, 2, robust=robust), objective=objective)
    candidates = any_candidates(problem, 1, 300)
    simulated_s = problem.unconstrained_seconds(candidates)
    assert (Floor(problem).seconds(candidates) <= simulated_s * (1 + 1e-9)).all()


@pytest.mark.parametrize(("seed", "n_gpus"), [(seed, n_gpus) for seed in range(5) for n_gpus in (0, 1, 2)])
def test_what_is_shaped_fits_and_a_plan_that_fits_keeps_what_it_must(seed, n_gpus):
    problem = draw_problem(seed, 9, n_gpus)
    if not problem.fit.fits(leanest(problem))[0]:
        return
    drawn = any_candidates(problem, seed, 200)
    keep = np.random.default_rng(0).random(drawn.codes.shape) < 0.5
    shaped = make_guide(problem).shaper.shape(drawn, np.zeros(len(drawn), dtype=np.int64), keep=keep)
    assert problem.fit.fits(shaped).all()
    fitting = problem.fit.fits(drawn)
    assert (shaped.codes == drawn.codes)[fitting[:, None] & keep].all()


def test_room_is_used_for_what_saves_most_a_byte():
    problem = draw_problem(2, 6, 0)
    roomy = Budget(problem.budget.ram_bytes * 100)
    problem = replace(problem, budget=roomy, fit=replace(problem.fit, budget=roomy))
    worth = np.tile(np.array([1.0, 0.0]), (1, 7, 1))
    streamed = leanest(problem)
    shaped = Shaper(problem, worth, problem.allowed[None]).shape(streamed, np.zeros(1, dtype=np.int64))
    assert streamed.codes.tolist() == [[1] * 7]
    assert shaped.codes.tolist() == [[0] * 7]


def test_random_draws_other_candidates_for_another_seed():
    problem = draw_problem(8, 30, 1)
    found = {random_search(problem, Effort(seed, 300)).best.codes.tobytes() for seed in range(4)}
    assert len(found) > 1


def test_greedy_fills_and_even_spreads():
    problem = draw_problem(14, 12, 0)
    rows = filled(problem).codes
    assert sorted(rows[0]) == sorted(rows[1])
    assert greedy(problem, Effort()).best.codes.tolist() == [rows[0].tolist()]
    assert even(problem, Effort()).best.codes.tolist() == [rows[1].tolist()]


def test_trails_stay_between_their_limits():
    problem = draw_problem(2, 6, 1)
    parameters = AcoParameters(rho=0.5)
    trails = Trails.fresh(problem, parameters)
    best = leanest(problem)
    for _ in range(50):
        trails.deposit(best)
    on_best = trails.stages[np.arange(7), best.codes[0]]
    assert on_best.tolist() == [1.0] * 7
    assert trails.stages.sum() == pytest.approx(7 + trails.lowest * (trails.stages.size - 7))
    # a converged colony builds its best again with p_best, if at each stage half of the choices are in question
    each = 1 / (1 + trails.lowest * (trails.stages.shape[1] / 2 - 1))
    assert each**7 == pytest.approx(parameters.p_best)


def test_slots_are_drawn_by_their_trails():
    problem = draw_problem(2, 6, 1)
    trails = Trails.fresh(problem, AcoParameters())
    trails.host[:] = [0, 0, 1, 0, 0, 0]
    host, gpu = trails.slots(np.random.default_rng(0), 50)
    assert set(host.tolist()) == {HOST_SLOTS[2]}
    assert set(gpu.tolist()) == set(GPU_SLOTS)


def test_a_search_counts_and_keeps():
    problem = draw_problem(6, 5, 1)
    search = Search(problem, Effort(evaluations=50))
    candidates = any_candidates(problem, 0, 400)
    fitting = candidates.take(np.flatnonzero(problem.fit.fits(candidates)))
    found = search.weigh_all(fitting)
    assert search.evaluations == np.isfinite(found).sum() <= 50
    assert search.best_s == found.min() == problem.seconds(search.best)[0]
    assert not np.isfinite(search.weigh_all(fitting.take(np.arange(search.evaluations)))).any()  # seen before
    search.drawn = DRAWN * 50 + 1
    assert search.done


def test_shares_become_even_distances():
    likely = np.tile(np.array([0.75, 0.25]), (1, 8, 1))
    assert diffuse(likely)[0].tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert diffuse(likely, np.array([[0.0, 0.7]]))[0].tolist() == [1, 0, 0, 0, 1, 0, 0, 0]


def test_choices_are_spread():
    assert spread_out(np.array([0, 0, 0, 0, 1, 1])).tolist() == [0, 1, 0, 0, 1, 0]
    assert spread_out(np.array([0, 0, 0, 0, 1, 1]), np.array([0.0, 0.9])).tolist() == [0, 0, 1, 0, 0, 1]
    assert spread_out(np.array([3, 3, 5, 5, 5])).tolist() == [5, 3, 5, 3, 5]


def test_turns_go_round_the_devices():
    problem = draw_problem(0, 8, 1)
    types = replace(stage_types(problem), of_stage=np.zeros(8, dtype=np.int64), first=np.array([0]), size=np.array([8]))
    device_of = np.array([0, 0, 1])
    codes = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    assert go_round(types, codes, device_of, (1, 0), 1).tolist() == [2, 2, 2, 2, 0, 1, 0, 1]
    assert go_round(types, codes, device_of, (0, 1), 2).tolist() == [0, 1, 2, 2, 0, 1, 2, 2]
