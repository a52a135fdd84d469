"""Of plans that take equally long, the one whose weights stay where they are computed.

A search ends where time is near enough to the bound; weights may then still move for every token, hidden behind
computation, although there is room where they are computed. That keeps a link or a disk busy for nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates, Choice
from llmrun.planner.problem import Problem
from llmrun.planner.searches.search import Search

TOLERANCE = 0.005
"""Of the objective: what is not told apart. Speeds are measured no better, and repeated runs differ by more."""

ROUNDS = 8

Ints = NDArray[np.int64]


def settled(search: Search, most_s: float) -> Candidates:
    """The best of a search, or one that moves fewer units and takes no longer by more than ``TOLERANCE``.

    Units are settled in execution order, as many as fit and as the time allows; then others, one by one, where more
    bytes are left than the next unit takes.

    Args:
        search: what it may still simulate is what is tried.
        most_s: longer it must not take in any case.
    """
    best, most_s = search.best, min(most_s, search.best_s * (1 + TOLERANCE))
    home = _homes(search.problem)
    for _ in range(ROUNDS):
        moving = np.flatnonzero(home[np.arange(len(home)), best.codes[0]] != best.codes[0])
        tried = _growing(best, moving, home)
        found = np.flatnonzero(search.weigh_all(tried) <= most_s)
        if not len(found):
            tried = _single(best, moving, home)
            found = np.flatnonzero(search.weigh_all(tried) <= most_s)
        if not len(found):
            break
        best = tried.take(found[-1:])
    return best


def _homes(problem: Problem) -> Ints:
    """``(n, C)``: for each choice the one that keeps the weights where a token is computed, as they are if it may."""
    rows = [[_home(problem.choices, code, allowed) for code in range(len(allowed))] for allowed in problem.allowed]
    return np.array(rows)


def _home(choices: tuple[Choice, ...], code: int, allowed: NDArray[np.bool_]) -> int:
    now = choices[code]
    if now.home == now.device:
        return code
    staying = (at for at, c in enumerate(choices) if allowed[at] and c.home == c.device == now.device)
    return next((at for at in staying if choices[at].prefill_device == now.prefill_device), code)


def _growing(best: Candidates, moving: Ints, home: Ints) -> Candidates:
    """The first moving unit settled, the first two, and so on."""
    rows = np.arange(len(moving))[:, None] >= np.arange(len(moving))[None, :]
    return _with(best, moving, home, rows)


def _single(best: Candidates, moving: Ints, home: Ints) -> Candidates:
    """Each moving unit settled alone."""
    return _with(best, moving, home, np.eye(len(moving), dtype=bool))


def _with(best: Candidates, moving: Ints, home: Ints, rows: NDArray[np.bool_]) -> Candidates:
    codes = np.repeat(best.codes, len(rows), axis=0)
    codes[:, moving] = np.where(rows, home[moving, codes[:, moving]], codes[:, moving])
    return Candidates(codes, np.repeat(best.host_slots, len(rows)), np.repeat(best.gpu_slots, len(rows)))
