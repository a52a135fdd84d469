"""``aco``: MAX-MIN Ant System over the sequence of decisions, with local search.

Stuetzle & Hoos 2000, "MAX-MIN Ant System", Future Generation Computer Systems 16; Dorigo & Stuetzle 2004, "Ant Colony
Optimization", MIT Press, chapters 3 and 4. Trails lie on each (stage, choice) and on the slots of the rings. What an
ant sees is what a choice saves at the prices of the relaxed plan (``guide``). All ants of an iteration are built,
fitted into memory and simulated at once.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates, join
from llmrun.planner.guidance.guide import Guide, make_guide
from llmrun.planner.guidance.sequence import diffuse
from llmrun.planner.problem import Effort, Outcome, Problem
from llmrun.planner.searches.local_search import LocalSearch, Place
from llmrun.planner.searches.opening import Opening
from llmrun.planner.searches.search import Search
from llmrun.planner.searches.seeds import filled
from llmrun.planner.searches.settle import settled
from llmrun.planner.searches.trails import AcoParameters, Trails

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DEFAULT_PARAMETERS = AcoParameters()
SCOUTED = 0.5  # of the effort on one scenario first, where there are several: a candidate costs as much as scenarios


def aco(
    problem: Problem,
    effort: Effort,
    parameters: AcoParameters = DEFAULT_PARAMETERS,
    seeds: Candidates | None = None,
) -> Outcome:
    """The best that was found, or what takes as long and moves less.

    Never worse than ``greedy`` and ``even``.

    Args:
        problem: what to plan.
        effort: two simulated candidates at least, for ``greedy`` and ``even``.
        parameters: of the colony.
        seeds: more candidates to start from, such as the bound's counts arranged.
    """
    search = Search(problem, effort)
    simple = filled(problem)
    simple_s = search.weigh_all(simple).min()
    search.weigh_all(join([search.best, *([seeds] if seeds else [])]))
    if not search.done:
        _Colony(search, make_guide(problem), parameters).run()
    best = settled(search, simple_s) if np.isfinite(search.best_s) else search.best
    return Outcome(best, search.evaluations)


class _Colony:
    """Trails, ants and the local search of one run."""

    def __init__(self, search: Search, guide: Guide, parameters: AcoParameters) -> None:
        self.search, self.guide, self.parameters = search, guide, parameters
        self.random = np.random.Generator(np.random.PCG64(search.effort.seed))
        self.local = LocalSearch(guide, self.random)
        self.trails = Trails.fresh(search.problem, parameters)
        self.frames = np.zeros(1, dtype=np.int64)  # by which ants see

    def run(self) -> None:
        """Seeds, then ants, until the search is done."""
        self._begin()
        turn = idle = 0
        while not self.search.done:
            before_s, turn = self.search.best_s, turn + 1
            chosen = self._iterate()
            self.trails.deposit(self.search.best if turn % self.parameters.best_every == 0 else chosen)
            idle = 0 if self.search.best_s < before_s else idle + 1
            if idle == self.parameters.restart_after:
                self.trails, idle = Trails.fresh(self.search.problem, self.parameters), 0

    def _begin(self) -> None:
        """The tournament of the seeds; its winner leaves the first trails."""
        opening = Opening(self.guide, self.local)
        places = self._scouted(opening) if len(self.search.problem.costs) > 1 else opening.places(self.search)
        self.frames = np.array([place.frame for place in places] or [0])
        for _ in range(self.parameters.first_deposits):
            self.trails.deposit(self.search.best)

    def _scouted(self, opening: Opening) -> list[Place]:
        """The opening for the host as measured; its places then weighed, and the best improved, in all scenarios."""
        search, problem = self.search, self.search.problem
        effort = Effort(search.effort.seed, int(search.left * SCOUTED))
        scout = Search(replace(problem, costs=problem.costs[:1]), effort, first=search.best)
        scout.weigh_all(search.best)
        places = opening.places(scout)
        search.evaluations += scout.evaluations
        if not places:
            return []
        seconds = search.weigh_all(join([place.candidate for place in places]))
        weighed = [replace(place, seconds=float(s)) for place, s in zip(places, seconds, strict=True) if np.isfinite(s)]
        weighed.append(Place(search.best, search.best_s, places[0].frame))
        weighed.sort(key=lambda place: place.seconds)
        return [self.local.improve(search, weighed[0]), *weighed[1:]]

    def _iterate(self) -> Candidates:
        """One generation of ants; the best of them after local search."""
        ants, frames = self._ants()
        seconds = self.search.weigh(ants, below_s=np.inf)
        row = int(np.argmin(seconds))
        if not np.isfinite(seconds[row]):
            return self.search.best
        ant = Place(ants.take(np.array([row])), float(seconds[row]), int(frames[row]))
        return self.local.improve(self.search, ant).candidate

    def _ants(self) -> tuple[Candidates, Ints]:
        """Built by trails and sight, and made to fit; and the relaxed plan by which each saw.

        Half of them choose as often as the probabilities say, at even distances; the others by chance.
        """
        parameters, count = self.parameters, self.parameters.ants
        frames = self.frames[self.random.integers(len(self.frames), size=count)]
        attraction = np.log(self.trails.stages) * parameters.alpha + self.guide.log_eta[frames] * parameters.beta
        codes = np.argmax(attraction + self.random.gumbel(size=attraction.shape), axis=2)  # by their probabilities
        even = attraction[: count // 2]
        likely = np.exp(even - even.max(axis=2, keepdims=True))
        codes[: count // 2] = diffuse(likely, self.random.uniform(-0.5, 0.5, size=likely[:, 0].shape))
        host, gpu = self.trails.slots(self.random, count)
        noise = np.exp(parameters.noise * self.random.standard_normal(codes.shape))
        return self.guide.shaper.shape(Candidates(codes, host, gpu), frames, noise), frames
