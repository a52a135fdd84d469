"""Counts instead of a sequence: all placements within the budget, as a mixed-integer linear program.

A variable says how many stages of a class make a choice, another how many bytes these have; the account of memory is
that of ``Fit``. What ``time_rows`` adds holds for every order of the stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.certificate.linear import Program, Terms, times
from llmrun.planner.certificate.stage_classes import StageClasses
from llmrun.planner.memory import CUDA_CONTEXT_BYTES, fixed_ram_bytes, keeping_bytes, workspace_bytes
from llmrun.planner.plan import CPU
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Problem
from llmrun.units import GIB

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Ring:
    """A kind of ring.

    Attributes:
        options: how many slots it may have, rising.
        beyond: for each option but the last, a variable that is 1 where there are more slots than that.
    """

    options: tuple[int, ...]
    beyond: tuple[Ints, ...]

    @property
    def more(self) -> Terms:
        """Slots beyond the first."""
        return times(np.concatenate(self.beyond), np.diff(self.options).astype(np.float64))


@dataclass(frozen=True)
class Counts:
    """The variables of a relaxation, ``(K, C)``: how many stages of a class make a choice, and how many GiB they have.

    ``gib`` is -1 where a class has stages of one weight.
    """

    program: Program
    classes: StageClasses
    number: Ints
    gib: Ints

    def sum(self, choices: Bools, table: Floats) -> Terms:
        """Over the stages that make one of the choices, the values ``(n,)`` or ``(n, C)``, or a little less."""
        full = np.broadcast_to(table if table.ndim == 2 else table[:, None], (len(table), len(choices)))
        base, steepness = self.classes.lines(full)
        unlike = (self.gib >= 0) & choices
        return Terms(
            np.concatenate([self.number[:, choices].ravel(), self.gib[unlike]]),
            np.concatenate([base[:, choices].ravel(), steepness[unlike]]),
        )

    def share(self, number: int, choices: Bools) -> Terms:
        """Which part of a class makes one of the choices."""
        return times(self.number[number, choices], 1.0 / self.classes.size[number])

    def any_stage(self, choices: Bools) -> Terms:
        """1 where any stage makes one of the choices."""
        used = times(self.program.variable(1, integer=True), 1.0)
        for number in range(len(self.classes)):
            self.program.at_least(0, used, -self.share(number, choices))
        return used

    def largest_layer(self, choices: Bools) -> tuple[Terms, Terms]:
        """The largest layer in GiB that makes one of the choices: at least so much, at most so much.

        A sum of steps, one for each class by weight; a step is taken where a stage of that class or beyond does.
        """
        low, high = self.classes.lightest_gib[:-1], self.classes.heaviest_gib[:-1]
        order = np.argsort(low, kind="stable")
        steps = self.program.variables(np.ones(len(order)), integer=True)
        for step, number in zip(steps, order, strict=True):
            self.program.at_least(0, times(np.array([step]), 1.0), -self.share(int(number), choices))
        for less, more in pairwise(steps):
            self.program.at_least(0, times(np.array([less, more]), np.array([1.0, -1.0])))
        highest = np.maximum.accumulate(high[order])
        return times(steps, np.diff(low[order], prepend=0.0)), times(steps, np.diff(highest, prepend=0.0))


@dataclass(frozen=True)
class Relaxation:
    """All placements within the budget: their counts, the rings, and the largest layer through that in RAM in GiB."""

    counts: Counts
    host: Ring
    gpu: Ring
    host_layer_gib: Terms


def relax(problem: Problem, classes: StageClasses) -> Relaxation:
    """The program without anything about time."""
    program = Program()
    counts = _counts(program, problem, classes)
    host, gpu = _ring(program, HOST_SLOTS), _ring(program, GPU_SLOTS)
    memory = _Memory(problem, counts)
    layers = [memory.fit(device, host if device == CPU else gpu) for device in problem.fit.devices]
    return Relaxation(counts, host, gpu, layers[0])


def _counts(program: Program, problem: Problem, classes: StageClasses) -> Counts:
    """Every stage makes one choice that it is allowed."""
    upper = -classes.least(-problem.allowed.astype(np.float64)) * classes.size[:, None]
    number = program.variables(upper.ravel(), integer=True).reshape(upper.shape)
    gib = np.full(upper.shape, -1)
    for each, size in enumerate(classes.size):
        program.equal(float(size), times(number[each], 1.0))
        low, high = classes.lightest_gib[each], classes.heaviest_gib[each]
        if low < high:
            gib[each] = program.variables(np.full(upper.shape[1], np.inf), integer=False)
            program.equal(float(classes.weight_gib[classes.of_stage == each].sum()), times(gib[each], 1.0))
            for count, weight in zip(number[each], gib[each], strict=True):
                pair = np.array([weight, count])
                program.at_least(0, times(pair, np.array([1.0, -low])))
                program.at_most(0, times(pair, np.array([1.0, -high])))
    return Counts(program, classes, number, gib)


def _ring(program: Program, options: tuple[int, ...]) -> Ring:
    beyond = tuple(program.variable(1, integer=True) for _ in options[1:])
    for less, more in pairwise(beyond):
        program.at_least(0, times(less, 1.0), times(more, -1.0))
    return Ring(options, beyond)


@dataclass(frozen=True)
class _Memory:
    problem: Problem
    counts: Counts

    def fit(self, device: str, ring: Ring) -> Terms:
        """A device keeps its budget; returns the largest layer that goes through its ring in GiB, at most."""
        problem, counts, choices = self.problem, self.counts, self.problem.choices
        computed = np.array([choice.device == device for choice in choices])
        visiting = np.array([choice.prefill_device == device for choice in choices]) & ~computed
        through = self._through_ring(device)
        at_least, at_most = counts.largest_layer(through)
        slot = self._slot(device, at_least, through, computed)
        held = problem.fit.held_bytes(device)
        terms = [counts.sum(np.any(held > 0, axis=0), held / GIB), counts.sum(computed, problem.fit.kv_bytes / GIB)]
        terms += [self._slots(slot, ring), self._visit(visiting), self._rest(computed)]
        room = problem.budget.on(device) / GIB
        fixed = workspace_bytes(problem.spec, problem.workload) / GIB
        if device == CPU:
            keeps = problem.fit.rounds
            if keeps.any():
                terms.append(counts.any_stage(keeps) * (keeping_bytes(problem.spec) / GIB))
            counts.program.at_most(room - fixed - fixed_ram_bytes(problem.spec, problem.workload) / GIB, *terms)
        elif (computed | visiting).any():  # there is room on a GPU that is used, and none on one that is not
            room -= fixed + CUDA_CONTEXT_BYTES / GIB
            counts.program.at_most(0.0, *terms, counts.any_stage(computed | visiting) * -room)
        return at_most

    def _through_ring(self, device: str) -> Bools:
        """Which choices take a stage through the ring there."""
        if device == CPU:
            return np.array([choice.passes_host_ring for choice in self.problem.choices])
        used = [(choice.device, choice.prefill_device) for choice in self.problem.choices]
        homes = [choice.home for choice in self.problem.choices]
        return np.array([device in devices and device != home for devices, home in zip(used, homes, strict=True)])

    def _slot(self, device: str, layer: Terms, through: Bools, computed: Bools) -> Terms:
        """As large as the largest layer and the head that go through it; what is small may pass the one in RAM."""
        slot = times(self.counts.program.variable(), 1.0)
        self.counts.program.at_least(0, slot, -layer)
        head_gib = float(self.counts.classes.weight_gib[-1])
        self.counts.program.at_least(0, slot, times(self.counts.number[-1, through], -head_gib))
        if device == CPU:
            self.counts.program.at_least(0, slot, -self._rest(~computed))
        return slot

    def _slots(self, slot: Terms, ring: Ring) -> Terms:
        """All slots: the first, and for each step to more a variable that is as large where it is taken."""
        largest = float(self.counts.classes.weight_gib.max())
        parts = [slot]
        for more, beyond in zip(np.diff(ring.options).tolist(), ring.beyond, strict=True):
            another = times(self.counts.program.variable(), 1.0)
            self.counts.program.at_least(-more * largest, another, slot * -more, times(beyond, -more * largest))
            parts.append(another)
        return joined(parts)

    def _visit(self, visiting: Bools) -> Terms:
        """Room for the KV cache of one stage, the smallest if any visits, or of the largest a share."""
        room = times(self.counts.program.variable(), 1.0)
        kv = self.counts.classes.least(self.problem.fit.kv_bytes / GIB)
        if not visiting.any() or not kv.any():
            return room
        used = times(self.counts.program.variable(1, integer=True), 1.0)
        self.counts.program.at_least(0, room, used * -float(kv[kv > 0].min()))
        for number in np.flatnonzero(kv):
            share = self.counts.share(int(number), visiting)
            self.counts.program.at_least(0, used, -share)
            self.counts.program.at_least(0, room, share * -float(kv[number]))
        return room

    def _rest(self, computed: Bools) -> Terms:
        """The small tensors live where the last layer is computed."""
        last = self.counts.number[-2 if self.problem.spec.n_layers else -1]
        return times(last[computed], self.problem.fit.rest_bytes / GIB)


def joined(parts: list[Terms]) -> Terms:
    """The sum of several."""
    return Terms(
        np.concatenate([part.variables for part in parts]), np.concatenate([part.coefficients for part in parts])
    )
