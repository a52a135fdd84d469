"""The account of memory for many candidates at once; equal, byte for byte, to ``memory.account`` for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.checkpoint.kept import kept_unit
from llmrun.checkpoint.spec import ModelSpec, UnitKind
from llmrun.planner.choices import Candidates, Choice, stages
from llmrun.planner.memory import CUDA_CONTEXT_BYTES, fixed_ram_bytes, keeping_bytes, kv_bytes, workspace_bytes
from llmrun.planner.plan import CPU, DISK
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
        """``(n,)``: the buffer of each stage, as it lies in the file."""
        return np.array([unit.buffer_bytes for unit in stages(self.spec)], dtype=np.int64)

    @cached_property
    def home_bytes(self) -> Ints:
        """``(n, C)``: what each stage takes where it lives, in the format that it is kept in."""
        rows = [[kept_unit(unit, c.kept).buffer_bytes for c in self.choices] for unit in stages(self.spec)]
        return np.array(rows, dtype=np.int64)

    @cached_property
    def substitute_bytes(self) -> Ints:
        """``(n, C)``: the copy in RAM that a stage is drafted with, where it has one."""
        rows = [
            [kept_unit(unit, c.substitute).buffer_bytes if c.substitute else 0 for c in self.choices]
            for unit in stages(self.spec)
        ]
        return np.array(rows, dtype=np.int64)

    def held_bytes(self, device: str) -> Ints:
        """``(n, C)``: weights that stay on a device, and copies of them to draft with."""
        home = np.array([choice.home == device for choice in self.choices])
        held: Ints = self.home_bytes * home + self.substitute_bytes * (device == CPU)
        return held

    @cached_property
    def kv_bytes(self) -> Ints:
        """``(n,)``: the KV cache of each stage."""
        return np.array([kv_bytes(unit, self.workload) for unit in stages(self.spec)], dtype=np.int64)

    @cached_property
    def rest_bytes(self) -> int:
        """The buffer of the small tensors, which are always resident."""
        return sum(unit.buffer_bytes for unit in self.spec.units if unit.kind is UnitKind.REST)

    def fits(self, candidates: Candidates) -> Bools:
        """``(A,)``: whether every device keeps its budget."""
        kept: Bools = np.all(self.used_bytes(candidates) <= self.budget_bytes, axis=1)
        return kept

    def used_bytes(self, candidates: Candidates) -> Ints:
        """``(A, D)``: the planned peak on each device."""
        beside, slot = self.parts_bytes(candidates)
        slots: Ints = np.stack([candidates.host_slots, *[candidates.gpu_slots] * (len(self.devices) - 1)], axis=1)
        total: Ints = beside + slots * slot
        return total

    def parts_bytes(self, candidates: Candidates) -> tuple[Ints, Ints]:
        """``(A, D)`` each: what is taken beside the ring on each device, and one slot of that ring."""
        at = np.ascontiguousarray(candidates.codes.T) + np.arange(self._shape[0])[:, None] * self._shape[1]
        parts = [self._on(index, at, candidates.codes) for index in range(len(self.devices))]
        return np.stack([beside for beside, _ in parts], axis=1), np.stack([slot for _, slot in parts], axis=1)

    def _on(self, index: int, at: Ints, codes: Ints) -> tuple[Ints, Ints]:
        """``at``: where a table ``(n, C)``, raveled, has what each stage of each candidate chose, ``(n, A)``."""
        tail = self._tail(codes)
        beside: Ints = self._kept[index][at].sum(axis=0) + self.rest_bytes * (tail == index)
        slot: Ints = self._through[index][at].max(axis=0)
        fixed = workspace_bytes(self.spec, self.workload)
        if index == 0:  # on its way to a GPU, what is small goes through the ring in RAM too
            beside = beside + self.rounds[codes].any(axis=1) * keeping_bytes(self.spec)
            slot = np.maximum(slot, self.rest_bytes * (tail != 0))
            return beside + fixed + fixed_ram_bytes(self.spec, self.workload), slot
        busy = self._busy[index][codes].any(axis=1)
        return beside + self._visit[index][at].max(axis=0) + busy * (fixed + CUDA_CONTEXT_BYTES), slot

    def _tail(self, codes: Ints) -> Ints:
        """Index of the device where ``rest`` lives."""
        tail: Ints = self._devices[codes[:, -2 if self.spec.n_layers else -1]]
        return tail

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.weight_bytes), len(self.choices)

    @cached_property
    def _kept(self) -> list[Ints]:
        """What stays on each device, and its KV cache, each ``(n x C,)`` as all that follow."""
        return [
            self.held_bytes(device).ravel() + self._table(self.kv_bytes, self._devices == d)
            for d, device in enumerate(self.devices)
        ]

    @cached_property
    def _visit(self) -> list[Ints]:
        """A KV cache that visits each device in a prefill."""
        return [self._table(self.kv_bytes, (self._prefill_devices == d) & (self._devices != d)) for d in self._each]

    @cached_property
    def _through(self) -> list[Ints]:
        """Weights that go through the ring there."""
        in_ram = np.array([choice.passes_host_ring for choice in self.choices])
        used = [{choice.device, choice.prefill_device} - {choice.home} for choice in self.choices]
        on_gpus = [np.array([gpu in devices for devices in used]) for gpu in self.devices[1:]]
        return [self._table(self.weight_bytes, through) for through in (in_ram, *on_gpus)]

    @cached_property
    def rounds(self) -> Bools:
        """``(C,)``: whether weights are rounded, to be kept or to draft with."""
        return np.array([bool(choice.kept or choice.substitute) for choice in self.choices])

    @cached_property
    def _busy(self) -> list[Bools]:
        """``(C,)``: whether each device computes at all."""
        return [(self._devices == d) | (self._prefill_devices == d) for d in self._each]

    @property
    def _each(self) -> range:
        return range(len(self.devices))

    def _table(self, values: Ints, choices: Bools) -> Ints:
        return np.outer(values, choices).ravel()

    @cached_property
    def _devices(self) -> Ints:
        return self._indices([choice.device for choice in self.choices])

    @cached_property
    def _prefill_devices(self) -> Ints:
        return self._indices([choice.prefill_device for choice in self.choices])

    def _indices(self, names: Sequence[str]) -> Ints:
        return np.array([-1 if name == DISK else self.devices.index(name) for name in names], dtype=np.int64)
