"""``exhaustive``: every candidate of a small problem, so that the best is known and not only believed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from llmrun.errors import UsageError
from llmrun.planner.choices import Candidates, join
from llmrun.planner.guidance.floor import Floor
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Effort, Outcome, Problem
from llmrun.planner.searches.lean import leanest
from llmrun.planner.searches.seeds import filled

Ints = NDArray[np.int64]

MOST = 2_000_000
CHUNK = 8192
AT_ONCE = 512  # simulated before the best is looked at again


def exhaustive(problem: Problem, effort: Effort) -> Outcome:
    """The best of all. What cannot fit or, by its floor, cannot beat the best so far is not simulated.

    Args:
        problem: of few stages and choices.
        effort: is not looked at.

    Raises:
        UsageError: ``bad-option``, there are too many.
    """
    count = prod(problem.allowed.sum(axis=1).tolist()) * len(_rings(problem))
    if count > MOST:
        raise UsageError(
            "bad-option",
            f"--planner exhaustive: {len(problem.allowed)} stages, {count:.1e} candidates, at most {MOST:,} are tried",
            hint="`--planner aco` finds the same on small models and ends on large ones",
        )
    best, best_s, evaluations = leanest(problem), np.inf, 0
    floor = Floor(problem)
    for chunk in _chunks(problem):
        fitting = chunk.take(np.flatnonzero(problem.fit.fits(chunk)))
        floor_s = floor.seconds(fitting)
        order = np.argsort(floor_s, kind="stable")
        for begin in range(0, len(order), AT_ONCE):
            rows = order[begin : begin + AT_ONCE]
            rows = rows[floor_s[rows] < best_s]
            if not len(rows):
                break
            seconds = problem.unconstrained_seconds(fitting.take(rows))
            evaluations += len(rows)
            if seconds.min() < best_s:
                best, best_s = fitting.take(rows[[int(np.argmin(seconds))]]), float(seconds.min())
    return Outcome(best, evaluations)


def _chunks(problem: Problem) -> Iterator[Candidates]:
    """Good ones first, against which the others are held; then all, the first stage changing slowest."""
    yield join([filled(problem), leanest(problem)])
    options = [np.flatnonzero(row) for row in problem.allowed]
    rings = _rings(problem)
    sizes = (*(len(row) for row in options), len(rings))
    total = prod(sizes)
    for begin in range(0, total, CHUNK):
        *picks, ring = np.unravel_index(np.arange(begin, min(begin + CHUNK, total)), sizes)
        codes = np.stack([row[pick] for row, pick in zip(options, picks, strict=True)], axis=1)
        yield Candidates(codes, rings[ring, 0], rings[ring, 1])


def _rings(problem: Problem) -> Ints:
    """``(K, 2)``: slots on the host and on GPUs; without a GPU there is no ring on one."""
    return np.array(list(product(HOST_SLOTS, GPU_SLOTS if problem.costs[0].n_gpus else GPU_SLOTS[:1])))
