"""The memory of a cell: which choices there are, and how many bytes each stage keeps where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.certificate.cells import Cell, Dimensions
from llmrun.planner.guidance.frames import device_bytes, ring_users
from llmrun.planner.memory import CUDA_CONTEXT_BYTES, fixed_ram_bytes, workspace_bytes
from llmrun.planner.plan import CPU, DISK, is_gpu
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Problem
from llmrun.planner.stage_types import StageTypes
from llmrun.units import GIB

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SPARE_GIB = 1e-6  # more than HiGHS rounds by


@dataclass(frozen=True)
class Room:
    """``T`` types of stages, ``C`` choices, ``D`` devices: the CPU and the GPUs that are planned for."""

    problem: Problem
    types: StageTypes

    def open(self, cell: Cell) -> Bools:
        """``(T, C)``: what goes through no ring that is too small for it, nor anywhere it may not."""
        found = self.allowed.copy()
        for ring, users in enumerate(self._ring_users):
            found[:, users] &= (self._gib <= self.sizes[cell.high[ring]])[:, None]
        if not cell.high[self.at.relays]:
            found[:, self._relayed] = False
        for gpu, visiting in enumerate(self._visiting):
            if not cell.high[self.at.visits(gpu)]:
                found[np.ix_(self._kv_gib > 0, visiting)] = False
        return found

    @cached_property
    def tables(self) -> list[Floats]:
        """``D`` of ``(T x C,)``: GiB on each device, of rings and visits apart."""
        return [np.ascontiguousarray(self._kept_gib[:, :, device]).ravel() for device in range(len(self._devices))]

    def constants(self, cell: Cell) -> list[float]:
        """``D``: the rings and visits at the least, less what there is room for."""
        slots = [HOST_SLOTS[cell.low[self.at.host_slots]]]
        slots += [GPU_SLOTS[cell.low[self.at.gpu_slots]]] * self.at.n_gpus
        taken = [count * float(self.sizes[cell.low[ring]]) for ring, count in enumerate(slots)]
        for gpu in range(self.at.n_gpus):
            taken[1 + gpu] += self._least_visit_gib * cell.low[self.at.visits(gpu)]
        return [used - max(0.0, room) - SPARE_GIB for used, room in zip(taken, self._room_gib.tolist(), strict=True)]

    @property
    def all(self) -> Cell:
        """Everything."""
        n_gpus, any_kv = self.at.n_gpus, int(self._kv_gib.any())
        rings = (len(self.sizes) - 1,) * (1 + n_gpus)
        slots = (len(HOST_SLOTS) - 1, len(GPU_SLOTS) - 1 if n_gpus else 0)
        high = (*rings, *slots, int(n_gpus > 0), *[any_kv] * n_gpus)
        return Cell((0,) * len(high), high)

    @cached_property
    def at(self) -> Dimensions:
        """Where cells have what."""
        return Dimensions(self.problem.costs[0].n_gpus)

    @property
    def shape(self) -> tuple[int, int]:
        """``(T, C)``."""
        return len(self.types), len(self.problem.choices)

    @cached_property
    def sizes(self) -> Floats:
        """Of slots in GiB, rising from none."""
        return np.unique(np.append(self._gib, 0.0))

    @cached_property
    def allowed(self) -> Bools:
        """``(T, C)``: a GPU without room for what any use of it takes is not there."""
        found = self.problem.allowed[self.types.first].copy()
        for device, room in zip(self._devices[1:], self._room_gib[1:], strict=True):
            if room < 0:
                found[:, [device in {c.home, c.device, c.prefill_device} for c in self.problem.choices]] = False
        return found

    @cached_property
    def _devices(self) -> list[str]:
        gpus = [choice.device for choice in self.problem.choices if choice.home == choice.device != CPU]
        return [CPU, *gpus]

    @cached_property
    def _columns(self) -> list[int]:
        return [self.problem.fit.devices.index(device) for device in self._devices]

    @cached_property
    def _gib(self) -> Floats:
        return self.problem.fit.weight_bytes[self.types.first] / GIB

    @cached_property
    def _kv_gib(self) -> Floats:
        return self.problem.fit.kv_bytes[self.types.first] / GIB

    @property
    def _least_visit_gib(self) -> float:
        return float(self._kv_gib[self._kv_gib > 0].min()) if self._kv_gib.any() else 0.0

    @cached_property
    def _room_gib(self) -> Floats:
        """``(D,)``: beside what any use of the device takes."""
        problem = self.problem
        fixed = [fixed_ram_bytes(problem.spec, problem.workload), *[CUDA_CONTEXT_BYTES] * self.at.n_gpus]
        budget = problem.fit.budget_bytes[self._columns].astype(np.float64)
        room: Floats = (budget - workspace_bytes(problem.spec, problem.workload) - np.array(fixed)) / GIB
        return room

    @cached_property
    def _kept_gib(self) -> Floats:
        """``(T, C, D)``: what is small lives where the last layer is computed."""
        problem = self.problem
        table = device_bytes(problem)[self.types.first][:, :, self._columns] / GIB
        last = self.types.of_stage[-2 if problem.spec.n_layers else -1]
        for column, device in enumerate(self._devices):
            computed = np.array([choice.device == device for choice in problem.choices])
            table[last, computed, column] += problem.fit.rest_bytes / GIB
        return table

    @cached_property
    def _ring_users(self) -> list[Bools]:
        users = ring_users(self.problem)
        return [users[column] for column in self._columns]

    @cached_property
    def _relayed(self) -> Bools:
        return np.array([choice.home == DISK and is_gpu(choice.device) for choice in self.problem.choices])

    @cached_property
    def _visiting(self) -> list[Bools]:
        choices = self.problem.choices
        return [np.array([c.prefill_device == gpu != c.device for c in choices]) for gpu in self._devices[1:]]
