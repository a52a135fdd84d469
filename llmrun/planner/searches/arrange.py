"""From counts back to a sequence: so many stages of each class make each choice, but which?

Evenly spread, so that what is streamed hides behind what is not; or in a few turns, devices one after the other in
each, where handing the hidden states over costs more than waiting for a ring.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.plan import Slots
from llmrun.planner.problem import Problem

Ints = NDArray[np.int64]

TURNS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)


def counts_to_candidates(
    problem: Problem, of_stage: Ints, counts: Ints, slots: Sequence[Slots], turns: Sequence[int] = TURNS
) -> Candidates:
    """Candidates in which so many stages of each class make each choice; whether they fit is not looked at.

    Args:
        problem: what to plan.
        of_stage: ``(n,)``, the class of each stage.
        counts: ``(K, C)``, rows that sum to the sizes of the classes.
        slots: each candidate comes with each of these.
        turns: how often the computation goes round the devices.
    """
    n = len(of_stage)
    rounds = sorted({min(turn, n) for turn in turns})
    rows = [_codes(problem, of_stage, counts, turn, gpus_first) for turn in rounds for gpus_first in (False, True)]
    codes = np.unique(np.array(rows), axis=0)
    return Candidates(
        np.tile(codes, (len(slots), 1)),
        np.repeat([ring.host for ring in slots], len(codes)),
        np.repeat([ring.gpu for ring in slots], len(codes)),
    )


def _codes(problem: Problem, of_stage: Ints, counts: Ints, turns: int, gpus_first: bool) -> Ints:
    """A row of codes ``(n,)``: in each of so many turns, one device after the other, each with its even share."""
    devices = sorted({choice.device for choice in problem.choices}, reverse=gpus_first)
    groups = [[code for code, c in enumerate(problem.choices) if c.device == device] for device in devices]
    codes = np.empty(len(of_stage), dtype=np.int64)
    for number, row in enumerate(counts):
        codes[of_stage == number] = _sequence(row, groups, turns)
    return codes


def _sequence(counts: Ints, groups: Sequence[Sequence[int]], turns: int) -> list[int]:
    """The choices of one class, in its own order."""
    edges = np.floor(np.outer(np.arange(turns + 1), counts) / turns + 0.5).astype(np.int64)
    parts = np.diff(edges, axis=0)  # the rounded line: every turn has its share, none is lost
    return [code for part in parts for group in groups for code in _mixed(part, group)]


def _mixed(counts: Ints, group: Sequence[int]) -> list[int]:
    """The codes of a group so many times each, every one at even distances."""
    places = [((2 * i + 1) / (2 * counts[code]), code) for code in group for i in range(counts[code])]
    return [code for _, code in sorted(places)]
