"""Where searches start from: ``greedy``, ``even``, and the relaxed plans of the guide, rounded and arranged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates, join, to_codes
from llmrun.planner.plan import DEFAULT_SLOTS, Slots
from llmrun.planner.problem import Effort, Outcome, Problem
from llmrun.planner.searches.fill import Choose, fill, last, spread
from llmrun.planner.searches.lean import leanest

Ints = NDArray[np.int64]

FILL_SLOTS = (DEFAULT_SLOTS, Slots(1, 1))


def greedy(problem: Problem, effort: Effort) -> Outcome:
    """Fill GPU, then RAM, then disk, in execution order; the leanest candidate where that does not fit."""
    return Outcome(_fitting(problem, last), 0)


def even(problem: Problem, effort: Effort) -> Outcome:
    """As many resident layers as ``greedy``, the streamed ones spread between them."""
    return Outcome(_fitting(problem, spread), 0)


def filled(problem: Problem) -> Candidates:
    """``greedy`` and ``even`` first, then both with other rings."""
    return join([_fill(problem, choose, slots) for slots in FILL_SLOTS for choose in (last, spread)])


def _fitting(problem: Problem, choose: Choose) -> Candidates:
    found = join([*(_fill(problem, choose, slots) for slots in FILL_SLOTS), leanest(problem)])
    fits = problem.fit.fits(found)
    return found.take(np.array([int(np.argmax(fits)) if fits.any() else len(found) - 1]))


def _fill(problem: Problem, choose: Choose, slots: Slots) -> Candidates:
    """On the GPUs that can be planned for."""
    gpus = {choice.device for choice in problem.choices}
    vram_bytes = {gpu: nbytes for gpu, nbytes in problem.budget.vram_bytes.items() if gpu in gpus}
    budget = replace(problem.budget, vram_bytes=vram_bytes)
    asked = problem.precision.format
    kept = asked if asked in {choice.kept for choice in problem.choices} else None
    placements = fill(problem.spec, problem.workload, budget, choose, slots, kept, problem.substitute)
    codes = np.array([to_codes(problem.spec, problem.choices, placements)])
    return Candidates(codes, np.array([slots.host]), np.array([slots.gpu]))
