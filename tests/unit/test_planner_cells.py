"""The bound by cells is below every candidate, alone as well, and the better the more is spent."""

from dataclasses import replace

import numpy as np
import pytest
from made_problem import any_candidates, draw_problem, every_candidate

from llmrun.planner.certificate.bound import lower_bound, weights
from llmrun.planner.certificate.branch import Branch
from llmrun.planner.certificate.cell_rows import CellRows
from llmrun.planner.certificate.cells import Cell
from llmrun.planner.problem import Objective, Problem
from llmrun.planner.searches.milp import rounded
from llmrun.planner.stage_types import stage_types


def by_cells(problem: Problem, budget_s: float) -> float:
    cold, warm, period = (weight / len(problem.costs) for weight in weights(problem))
    return Branch(CellRows(problem, stage_types(problem), (cold, warm, period))).least(budget_s)


@pytest.mark.parametrize("part", range(4))
def test_it_is_below_the_best_of_all_candidates(part):
    for seed in range(200 + part, 240, 4):
        n_layers, n_gpus = ((2, 1), (1, 2), (3, 0))[seed % 3]
        problem = draw_problem(seed, n_layers, n_gpus)
        best_s = problem.seconds(every_candidate(problem)).min()
        bound_s = by_cells(problem, 0.2)
        assert bound_s <= best_s, seed
        assert np.isfinite(bound_s) or np.isinf(best_s), seed


@pytest.mark.parametrize(("seed", "n_gpus"), [(11, 1), (12, 2)])
def test_it_is_below_candidates_of_larger_problems_for_every_objective(seed, n_gpus):
    for objective in Objective:
        problem = replace(draw_problem(seed, 18, n_gpus), objective=objective)
        found = problem.seconds(any_candidates(problem, seed, 1000))
        own = problem.seconds(rounded(problem, lower_bound(problem)))
        assert np.isfinite(own).any()
        assert by_cells(problem, 0.1) <= min(found.min(), own.min())


def test_of_a_robust_problem_too():
    problem = draw_problem(6, 12, 1, robust=True)
    own = problem.seconds(rounded(problem, lower_bound(problem)))
    assert 0 < by_cells(problem, 0.1) <= own.min()


def test_more_work_never_lowers_it_and_raises_it_somewhere():
    problem = draw_problem(8, 24, 1)
    found = [by_cells(problem, budget_s) for budget_s in (0.01, 0.05, 0.2)]
    assert found == sorted(found)
    assert found[-1] > found[0]


def test_the_same_problem_has_the_same_bound():
    assert by_cells(draw_problem(9, 20, 2), 0.1) == by_cells(draw_problem(9, 20, 2), 0.1)


def test_a_cell_is_split_into_two_that_cover_it():
    cell = Cell((0, 2, 1), (5, 7, 1))
    parts = list(cell.splits())
    assert parts == [
        (Cell((0, 2, 1), (0, 7, 1)), Cell((1, 2, 1), (5, 7, 1))),
        (Cell((0, 2, 1), (5, 4, 1)), Cell((0, 5, 1), (5, 7, 1))),
    ]
    assert not list(Cell((3,), (3,)).splits())
