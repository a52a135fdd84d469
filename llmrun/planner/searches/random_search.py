"""``random``: as many candidates as ``aco`` simulates, drawn blindly and made to fit in the same way."""

from __future__ import annotations

import numpy as np

from llmrun.planner.choices import Candidates
from llmrun.planner.guidance.guide import make_guide
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Effort, Outcome, Problem
from llmrun.planner.searches.search import Search

BATCH = 256


def random_search(problem: Problem, effort: Effort) -> Outcome:
    """The best of the candidates that were drawn; the leanest where none fits."""
    search = Search(problem, effort)
    random = np.random.Generator(np.random.PCG64(effort.seed))
    guide = make_guide(problem)
    while not search.done:
        likely = random.random((BATCH, *problem.allowed.shape)) * problem.allowed
        drawn = Candidates(
            np.argmax(likely, axis=2), random.choice(HOST_SLOTS, size=BATCH), random.choice(GPU_SLOTS, size=BATCH)
        )
        frames = random.integers(len(guide.prices), size=BATCH)
        search.drawn += BATCH
        search.weigh_all(guide.shaper.shape(drawn, frames))
    return search.outcome
