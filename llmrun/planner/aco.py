"""``aco``: MAX-MIN Ant System over the sequence of decisions, with local search.

Stuetzle & Hoos 2000, "MAX-MIN Ant System", Future Generation Computer Systems 16; Dorigo & Stuetzle 2004, "Ant Colony
Optimization", MIT Press, chapters 3 and 4. Trails lie on each (stage, choice) and on the slots of the rings. What an
ant sees is what a choice saves at the prices of the relaxed plan (``guide``). All ants of an iteration are built,
fitted into memory and simulated at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates, join
from llmrun.planner.guide import Guide, make_guide
from llmrun.planner.local_search import LocalSearch, Place
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Effort, Outcome, Problem
from llmrun.planner.search import Search
from llmrun.planner.seeds import filled
from llmrun.planner.sequence import diffuse

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class AcoParameters:
    """The parameters, and where each comes from.

    Attributes:
        ants: of an iteration. Stuetzle & Hoos use one a city without and 5 to 25 with local search; as a batch is
            simulated at once, more cost little, and fewer make no use of that.
        alpha: weight of the trails, 1 in all of Dorigo & Stuetzle's tables.
        beta: weight of what an ant sees, 2 to 5 there; 2 as in most of them.
        rho: evaporation, 0.2 in MMAS with local search (Stuetzle & Hoos, section 5: trails persist by 0.8).
        p_best: probability that a converged colony builds its best again, 0.05 (Stuetzle & Hoos, section 3.3): it
            gives the lowest trail.
        best_every: every so many iterations the best so far deposits, else the best of the iteration; they raise its
            share over time, a short search has it high from the start.
        restart_after: iterations without a gain after which all trails are the highest again (their section 4.2).
        first_deposits: deposits of the best seed before the first ants; our own, since a second is short.
        whole: frames that are solved in whole stages; our own.
        starts: frames from whose seeds the local search starts; our own.
        noise: of the order in which stages give way (standard deviation of its logarithm); our own.
    """

    ants: int = 96
    alpha: float = 1.0
    beta: float = 2.0
    rho: float = 0.2
    p_best: float = 0.05
    best_every: int = 2
    restart_after: int = 8
    first_deposits: int = 5
    whole: int = 8
    starts: int = 4
    noise: float = 0.3


DEFAULT_PARAMETERS = AcoParameters()


def aco(
    problem: Problem,
    effort: Effort,
    parameters: AcoParameters = DEFAULT_PARAMETERS,
    seeds: Candidates | None = None,
) -> Outcome:
    """The best that was found; never worse than ``greedy``, ``even`` or one of the ``seeds`` that fits.

    Args:
        problem: what to plan.
        effort: two simulated candidates at least, for ``greedy`` and ``even``.
        parameters: of the colony.
        seeds: more candidates to start from, such as the bound's counts arranged.
    """
    search = Search(problem, effort)
    search.weigh_all(join([filled(problem), search.best, *([seeds] if seeds else [])]))
    if not search.done:
        _Colony(search, make_guide(problem), parameters).run()
    return search.outcome


class _Colony:
    """Trails, ants and the local search of one run."""

    def __init__(self, search: Search, guide: Guide, parameters: AcoParameters) -> None:
        self.search, self.guide, self.parameters = search, guide, parameters
        self.random = np.random.Generator(np.random.PCG64(search.effort.seed))
        self.local = LocalSearch(guide, self.random)
        self.trails = Trails.fresh(search.problem, parameters)
        self.frames = np.arange(len(guide.prices))  # those whose ants were best come more often

    def run(self) -> None:
        """Seeds, then ants, until the search is done."""
        self._begin()
        idle = 0
        while not self.search.done:
            before_s = self.search.best_s
            ants, frames = self._ants()
            seconds = self.search.weigh(ants, below_s=np.inf)
            self._iterate(ants, seconds, frames)
            idle = 0 if self.search.best_s < before_s else idle + 1
            if idle == self.parameters.restart_after:
                self.trails, idle = Trails.fresh(self.search.problem, self.parameters), 0

    def _begin(self) -> None:
        """The relaxed plans in all arrangements; the best of a few frames with better counts, again in all of them."""
        rounded, frames = self.guide.rounded()
        floor_s = self.search.floor.seconds(rounded)
        firsts = _best_of_each(floor_s, frames)[: self.parameters.whole]
        whole, of_frame = self.guide.whole(rounded.take(firsts), frames[firsts], self.random)
        seeds, frames = join([rounded, whole]), np.concatenate([frames, of_frame])
        seconds = self.search.weigh(seeds, max(1, self.search.left // 4), below_s=np.inf)
        order = np.argsort(seconds, kind="stable")
        order = order[np.isfinite(seconds[order])]
        self.frames = frames[order[:16]] if len(order) else self.frames[:1]
        self.local.tournament(self.search, self._starts(seeds, seconds, frames))
        for _ in range(self.parameters.first_deposits):
            self.trails.deposit(self.search.best)

    def _starts(self, seeds: Candidates, seconds: Floats, frames: Ints) -> list[Place]:
        """Of each frame the best, half by what it takes and half by what it would without any waiting."""
        found = np.where(np.isfinite(seconds), (seconds + self.search.floor.seconds(seeds)) / 2, np.inf)
        rows = [row for row in _best_of_each(found, frames)[: self.parameters.starts] if np.isfinite(seconds[row])]
        places = [Place(seeds.take(np.array([row])), float(seconds[row]), int(frames[row])) for row in rows]
        return [*places, Place(self.search.best, self.search.best_s, int(self.frames[0]))]

    def _ants(self) -> tuple[Candidates, Ints]:
        """Built by trails and sight, and made to fit."""
        parameters, count = self.parameters, self.parameters.ants
        frames = self.frames[self.random.integers(len(self.frames), size=count)]
        attraction = np.log(self.trails.stages) * parameters.alpha + self.guide.log_eta[frames] * parameters.beta
        spread = (
            count // 2
        )  # ants that choose as often as the probabilities say, not by chance: no luck, even distances
        codes = np.argmax(attraction + self.random.gumbel(size=attraction.shape), axis=2)  # by their probabilities
        likely = np.exp(attraction[:spread] - attraction[:spread].max(axis=2, keepdims=True))
        codes[:spread] = diffuse(likely, self.random.uniform(-0.5, 0.5, size=likely[:, 0].shape))
        host, gpu = self.trails.slots(self.random, count)
        noise = np.exp(parameters.noise * self.random.standard_normal(codes.shape))
        return self.guide.shaper.shape(Candidates(codes, host, gpu), frames, noise), frames

    def _iterate(self, ants: Candidates, seconds: Floats, frames: Ints) -> None:
        """Local search from the best ant, then evaporation and one deposit."""
        self.trails.iterations += 1
        chosen = self.search.best
        row = int(np.argmin(seconds))
        if np.isfinite(seconds[row]):
            ant = ants.take(np.array([row]))
            improved = self.local.improve(self.search, Place(ant, float(seconds[row]), int(frames[row]))).candidate
            chosen = chosen if self.trails.iterations % self.parameters.best_every == 0 else improved
        self.trails.deposit(chosen)


def _best_of_each(seconds: Floats, frames: Ints) -> Ints:
    """For each frame its best row, the best frames first."""
    order = np.argsort(seconds, kind="stable")
    _, first = np.unique(frames[order], return_index=True)
    return order[np.sort(first)]


class Trails:
    """Pheromone between its limits, as shares of the highest: what counts is how trails compare."""

    def __init__(self, stages: Floats, host: Floats, gpu: Floats, parameters: AcoParameters) -> None:
        self.stages, self.host, self.gpu, self.parameters = stages, host, gpu, parameters
        self.iterations = 0

    @staticmethod
    def fresh(problem: Problem, parameters: AcoParameters) -> Trails:
        """All at their highest."""
        return Trails(np.ones(problem.allowed.shape), np.ones(len(HOST_SLOTS)), np.ones(len(GPU_SLOTS)), parameters)

    @property
    def lowest(self) -> float:
        """The least trail, for which a converged colony builds its best with probability ``p_best``."""
        n, choices = self.stages.shape
        each = float(self.parameters.p_best ** (1 / n))
        others = max(choices / 2 - 1, 1.0)  # half of the choices are in question at a stage, but two at least
        return float(min(1.0, (1 - each) / (others * each)))

    def deposit(self, best: Candidates) -> None:
        """Evaporation everywhere; what the best chose gains as much as keeps a full trail full."""
        for trail, index in (
            (self.stages, (np.arange(len(self.stages)), best.codes[0])),
            (self.host, (np.searchsorted(HOST_SLOTS, best.host_slots[0]),)),
            (self.gpu, (np.searchsorted(GPU_SLOTS, best.gpu_slots[0]),)),
        ):
            trail *= 1 - self.parameters.rho
            trail[index] += self.parameters.rho  # 1 / best over the highest trail, 1 / (rho x best)
            np.clip(trail, self.lowest, 1.0, out=trail)

    def slots(self, random: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Slots on the host and on GPUs, ``(count,)`` each, drawn by their trails."""
        host = random.choice(HOST_SLOTS, size=count, p=self.host / self.host.sum())
        return host, random.choice(GPU_SLOTS, size=count, p=self.gpu / self.gpu.sum())
