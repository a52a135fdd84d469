"""The placement that takes the least memory: if even that does not fit, nothing does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmrun.checkpoint.spec import UnitKind
from llmrun.planner.choices import Candidates, Choice, stages
from llmrun.planner.plan import CPU, DISK
from llmrun.planner.problem import Problem

Ints = NDArray[np.int64]


def leanest(problem: Problem) -> Candidates:
    """Everything streamed through one slot, and as few layers as it needs on the GPUs; what exceeds least if none fits.

    A layer that a GPU computes has its KV cache there, so the GPUs may hold what the RAM cannot.
    """
    candidates = _streamed(problem)
    over_bytes = np.maximum(problem.fit.used_bytes(candidates) - problem.fit.budget_bytes, 0)
    gpus_fit = ~over_bytes[:, 1:].any(axis=1)
    rank = np.where(gpus_fit, over_bytes[:, 0], np.iinfo(np.int64).max)
    return candidates.take(np.array([int(np.argmin(rank))]))


def _streamed(problem: Problem) -> Candidates:
    """All on the CPU; then one layer more after the other on the first GPU, from there on on the next, ..."""
    layers = [i for i, unit in enumerate(stages(problem.spec)) if unit.kind is UnitKind.LAYER]
    cpu = problem.choices.index(Choice(DISK, CPU, CPU))
    rows = [np.full(len(problem.allowed), cpu)]
    for gpu in [choice.device for choice in problem.choices if choice.home == choice.device != CPU]:
        code = problem.choices.index(Choice(DISK, gpu, gpu))
        filled = _last_that_fits(problem, rows)
        for layer in [i for i in layers if filled[i] == cpu]:
            filled = filled.copy()
            filled[layer] = code
            rows.append(filled)
    return _one_slot(np.array(rows))


def _last_that_fits(problem: Problem, rows: list[Ints]) -> Ints:
    """The fullest of the rows so far whose GPUs keep their budgets."""
    used = problem.fit.used_bytes(_one_slot(np.array(rows)))
    fits = np.flatnonzero((used[:, 1:] <= problem.fit.budget_bytes[1:]).all(axis=1))
    return rows[int(fits[-1])]


def _one_slot(codes: Ints) -> Candidates:
    ones = np.ones(len(codes), dtype=np.int64)
    return Candidates(codes, ones, ones)
