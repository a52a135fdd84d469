"""The account of memory for many candidates at once; equal, byte for byte, to ``memory.account`` for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.checkpoint.spec import ModelSpec, UnitKind
from llmrun.planner.choices import Candidates, Choice, stages
from llmrun.planner.memory import CUDA_CONTEXT_BYTES, buffer_bytes, kv_bytes, process_bytes, workspace_bytes
from llmrun.planner.plan import CPU, DISK, is_gpu
from llmrun.settings import Budget, Workload

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Fit:
    """What candidates take on each device of the budget (the CPU first), and whether that is within it."""

    spec: ModelSpec
    workload: Workload
    budget: Budget
    choices: tuple[Choice, ...]

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The devices, in the order of every column here."""
        return (CPU, *sorted(self.budget.vram_bytes))

    @cached_property
    def budget_bytes(self) -> Ints:
        """``(D,)``."""
        return np.array([self.budget.on(device) for device in self.devices], dtype=np.int64)

    @cached_property
    def weight_bytes(self) -> Ints:
        """``(n,)``: the buffer of each stage."""
        return np.array([buffer_bytes(unit) for unit in stages(self.spec)], dtype=np.int64)

    @cached_property
    def kv_bytes(self) -> Ints:
        """``(n,)``: the KV cache of each stage."""
        return np.array([kv_bytes(unit, self.workload) for unit in stages(self.spec)], dtype=np.int64)

    @cached_property
    def rest_bytes(self) -> int:
        """The buffer of the small tensors, which are always resident."""
        return sum(buffer_bytes(unit) for unit in self.spec.units if unit.kind is UnitKind.REST)

    def fits(self, candidates: Candidates) -> Bools:
        """``(A,)``: whether every device keeps its budget."""
        kept: Bools = np.all(self.used_bytes(candidates) <= self.budget_bytes, axis=1)
        return kept

    def used_bytes(self, candidates: Candidates) -> Ints:
        """``(A, D)``: the planned peak on each device."""
        columns = [self._on(index, device, candidates) for index, device in enumerate(self.devices)]
        return np.stack(columns, axis=1)

    def _on(self, index: int, device: str, candidates: Candidates) -> Ints:
        codes = candidates.codes
        computed = self._devices[codes] == index
        visiting = (self._prefill_devices[codes] == index) & ~computed
        tail_here = self._tail(codes) == index
        weights = (self._homes[codes] == index) @ self.weight_bytes + self.rest_bytes * tail_here
        kv = computed @ self.kv_bytes + (visiting * self.kv_bytes).max(axis=1)
        slots = candidates.host_slots if device == CPU else candidates.gpu_slots
        busy = np.ones(len(codes), dtype=bool) if device == CPU else (computed | visiting).any(axis=1)
        process = process_bytes(self.spec) if device == CPU else CUDA_CONTEXT_BYTES
        fixed = workspace_bytes(self.spec, self.workload) + process
        total: Ints = weights + kv + slots * self._slot_bytes(index, codes) + busy * fixed
        return total

    def _slot_bytes(self, index: int, codes: Ints) -> Ints:
        through = self._through_ring[index][codes]
        largest: Ints = (through * self.weight_bytes).max(axis=1)
        if index == 0:  # on its way to a GPU, what is small goes through the ring in RAM too
            largest = np.maximum(largest, self.rest_bytes * (self._tail(codes) != 0))
        return largest

    def _tail(self, codes: Ints) -> Ints:
        """Index of the device where ``rest`` lives."""
        tail: Ints = self._devices[codes[:, -2 if self.spec.n_layers else -1]]
        return tail

    @cached_property
    def _homes(self) -> Ints:
        return self._indices([choice.home for choice in self.choices])

    @cached_property
    def _devices(self) -> Ints:
        return self._indices([choice.device for choice in self.choices])

    @cached_property
    def _prefill_devices(self) -> Ints:
        return self._indices([choice.prefill_device for choice in self.choices])

    @cached_property
    def _through_ring(self) -> list[Bools]:
        """For each device, whether each choice takes a unit through the ring there."""
        in_ram = np.array([choice.home == DISK or is_gpu(choice.home) for choice in self.choices])
        used = [{choice.device, choice.prefill_device} - {choice.home} for choice in self.choices]
        return [in_ram, *(np.array([gpu in devices for devices in used]) for gpu in self.devices[1:])]

    def _indices(self, names: Sequence[str]) -> Ints:
        return np.array([-1 if name == DISK else self.devices.index(name) for name in names], dtype=np.int64)
