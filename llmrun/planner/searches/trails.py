"""The pheromone of a MAX-MIN Ant System, and its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class AcoParameters:
    """The parameters, and where each comes from.

    Attributes:
        ants: of an iteration. Stuetzle & Hoos 2000 use one a city without and 5 to 25 with local search; as a batch is
            simulated at once, more cost little.
        alpha: weight of the trails, 1 in all tables of Dorigo & Stuetzle 2004.
        beta: weight of what an ant sees, 2 to 5 there; 2 as in most of them.
        rho: evaporation, 0.2 in MMAS with local search (Stuetzle & Hoos, section 5: trails persist by 0.8).
        p_best: probability that a converged colony builds its best again, 0.05 (Stuetzle & Hoos, section 3.3): it
            gives the lowest trail.
        best_every: every so many iterations the best so far deposits, else the best of the iteration; they raise its
            share over time, a short search has it high from the start.
        restart_after: iterations without a gain after which all trails are the highest again (their section 4.2).
        first_deposits: deposits of the best seed before the first ants; our own, since a second is short.
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
    noise: float = 0.3


class Trails:
    """Pheromone on each (stage, choice) and on the slots of the rings, between its limits.

    As shares of the highest trail, ``1 / (rho x best)``: only how trails compare counts.
    """

    def __init__(self, stages: Floats, host: Floats, gpu: Floats, parameters: AcoParameters) -> None:
        self.stages, self.host, self.gpu, self.parameters = stages, host, gpu, parameters

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
            trail[index] += self.parameters.rho
            np.clip(trail, self.lowest, 1.0, out=trail)

    def slots(self, random: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Slots on the host and on GPUs, ``(count,)`` each, drawn by their trails."""
        host = random.choice(HOST_SLOTS, size=count, p=self.host / self.host.sum())
        return host, random.choice(GPU_SLOTS, size=count, p=self.gpu / self.gpu.sum())
