"""Stages sorted into a few classes, so that a program that counts them stays small.

A class is a type of stages that are alike or, where there are too many types, some that are about as large as each
other. Of a class one then knows how many stages make a choice and how many bytes they have together; what they cost is
bounded from below by a line over the bytes. Costs being lines over the bytes but for rounding, little is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.problem import Problem
from llmrun.planner.stage_types import stage_types
from llmrun.units import GIB

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FEW_COUNTS = 100
"""Types times choices up to which every type is a class."""

MOST_CLASSES = (40, 9, 6)
"""Beyond that, without a GPU, with one and with more: what HiGHS solves in a fraction of a second."""


@dataclass(frozen=True)
class StageClasses:
    """``K`` classes of the ``n`` stages; the last layer and the head are alone in theirs, the last two.

    Attributes:
        of_stage: ``(n,)``, the class of each stage.
        weight_gib: ``(n,)``.
        alike: ``(K,)``, whether the stages of a class are the same in every respect.
    """

    of_stage: Ints
    weight_gib: Floats
    alike: Bools

    def __len__(self) -> int:
        return len(self.alike)

    @cached_property
    def size(self) -> Ints:
        """``(K,)``: how many stages each has."""
        return np.bincount(self.of_stage)

    @cached_property
    def lightest_gib(self) -> Floats:
        """``(K,)``: the least weight of a stage of each."""
        return self.least(self.weight_gib)

    @cached_property
    def heaviest_gib(self) -> Floats:
        """``(K,)``: the largest weight of a stage of each."""
        return -self.least(-self.weight_gib)

    def least(self, values: Floats) -> Floats:
        """``(K, ...)`` from ``(n, ...)``: the least of each class."""
        order = np.argsort(self.of_stage, kind="stable")
        starts = np.searchsorted(self.of_stage[order], np.arange(len(self)))
        found: Floats = np.minimum.reduceat(values[order], starts, axis=0)
        return found

    def lines(self, table: Floats) -> tuple[Floats, Floats]:
        """``(K, C)`` each, from ``(n, C)``: ``a`` and ``b`` so that a stage of ``w`` GiB has at least ``a + b w``.

        The slope is that between the lightest and the heaviest stage; ``a`` is as large as it may be.
        """
        steepness = np.zeros((len(self), table.shape[1]))
        for number in np.flatnonzero(~self.alike):
            rows = np.flatnonzero(self.of_stage == number)
            order = rows[np.argsort(self.weight_gib[rows], kind="stable")]
            span = self.weight_gib[order[-1]] - self.weight_gib[order[0]]
            if span > 0:
                steepness[number] = (table[order[-1]] - table[order[0]]) / span
        base = self.least(table - steepness[self.of_stage] * self.weight_gib[:, None])
        return base, steepness


def stage_classes(problem: Problem) -> StageClasses:
    """The types of the stages, or classes of layers of about the same size where there are many types."""
    types = stage_types(problem).of_stage
    weight_gib = problem.fit.weight_bytes / GIB
    n = len(types)
    label = types.copy()
    if (types.max() + 1) * len(problem.choices) > FEW_COUNTS and n > 2:
        most = MOST_CLASSES[min(problem.costs[0].n_gpus, len(MOST_CLASSES) - 1)]
        order = np.argsort(weight_gib[:-2], kind="stable")
        label[:-2][order] = np.arange(n - 2) * (most - 2) // (n - 2)
    label[-2:] = np.arange(n, n + 2)[-min(n, 2) :]
    return _renumbered(label, weight_gib, types)


def _renumbered(of_stage: Ints, weight_gib: Floats, types: Ints) -> StageClasses:
    """Classes numbered by their last stages, so that the last layer and the head are at the end."""
    labels, numbers = np.unique(of_stage, return_inverse=True)
    last = np.array([np.flatnonzero(numbers == number)[-1] for number in range(len(labels))])
    rank = np.argsort(np.argsort(last))[numbers]
    alike = np.array([len(np.unique(types[rank == number])) == 1 for number in range(len(labels))])
    return StageClasses(rank, weight_gib, alike)
