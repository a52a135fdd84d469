"""Frames of a plan: which GPUs are used, and how large the rings are that the budget has to hold.

A ring has slots as large as the largest stage that goes through it, so what may be streamed at all is decided first;
within a frame the rest is an assignment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.memory import CUDA_CONTEXT_BYTES, fixed_ram_bytes, workspace_bytes
from llmrun.planner.plan import CPU, Slots, is_gpu
from llmrun.planner.problem import Problem

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SHARES = (0.8, 0.5, 0.2)  # of the stages that a slot may be large enough for, beside all and all layers


@dataclass(frozen=True)
class Frame:
    """The GPUs in use, slots of the rings, and the largest stage that may go through the one in RAM and on each GPU."""

    gpus: tuple[str, ...]
    slots: Slots
    host_bytes: int
    gpu_bytes: tuple[int, ...]

    def usable(self, problem: Problem) -> Bools:
        """``(n, C)``: what is allowed and goes through no ring that is too small for it."""
        open_ = problem.allowed.copy()
        nbytes = problem.fit.weight_bytes
        for device, users in zip(problem.fit.devices, ring_users(problem), strict=True):
            open_[:, users] &= (nbytes <= self.slot_bytes(device))[:, None]
        for code, choice in enumerate(problem.choices):
            used = {choice.home, choice.device, choice.prefill_device}
            open_[:, code] &= {device for device in used if is_gpu(device)} <= set(self.gpus)
        return open_

    def slot_bytes(self, device: str) -> int:
        """What fits a slot of the ring there."""
        return self.host_bytes if device == CPU else dict(zip(self.gpus, self.gpu_bytes, strict=True)).get(device, 0)

    def room_bytes(self, problem: Problem) -> Floats:
        """``(D,)``: for weights and KV caches, on each device of the budget."""
        fit = problem.fit
        beside = workspace_bytes(problem.spec, problem.workload) + fit.rest_bytes
        room = []
        for device, budget_bytes in zip(fit.devices, fit.budget_bytes, strict=True):
            process = fixed_ram_bytes(problem.spec, problem.workload) if device == CPU else CUDA_CONTEXT_BYTES
            left = float(budget_bytes) - beside - process - self.slots.on(device) * self.slot_bytes(device)
            room.append(left if device in (CPU, *self.gpus) else 0.0)
        return np.array(room)


def first_frames(problem: Problem) -> list[Frame]:
    """All GPUs, rings of one slot: large enough for any stage first, then for fewer and fewer."""
    gpus, sizes = _gpus(problem), _sizes(problem)
    on_gpus = [rings for rings in product(sorted({0, sizes[1], sizes[0]}), repeat=len(gpus)) if _telling(rings, sizes)]
    return [Frame(gpus, Slots(1, 1), host, rings) for host in (*sizes, 0) for rings in on_gpus]


def neighbours(problem: Problem, frame: Frame) -> list[Frame]:
    """Frames that differ from it in the ring on the host, in slots or in having fewer GPUs."""
    gpus = _gpus(problem)
    more = [Slots(2, 1), Slots(1, 2), Slots(2, 2), Slots(2, 3)] if frame.gpus else [Slots(2, 1)]
    fewer = [(), *((gpu,) for gpu in gpus if len(gpus) > 1)] if gpus else []
    return [
        *(replace(frame, slots=slots) for slots in more),
        *(replace(frame, host_bytes=nbytes) for nbytes in (*_sizes(problem), 0)),
        *(replace(frame, gpus=used, gpu_bytes=tuple(max(frame.gpu_bytes) for _ in used)) for used in fewer),
    ]


def device_bytes(problem: Problem) -> Floats:
    """``(n, C, D)``: weights and KV cache that each choice keeps on each device."""
    fit, choices = problem.fit, problem.choices
    columns = []
    for device in fit.devices:
        computed = np.array([choice.device == device for choice in choices])
        columns.append(fit.held_bytes(device) + computed * fit.kv_bytes[:, None])
    return np.stack(columns, axis=2).astype(np.float64)


def ring_users(problem: Problem) -> list[Bools]:
    """For each device ``(C,)``: the choices whose weights go through the ring there."""
    choices = problem.choices
    host = np.array([choice.passes_host_ring for choice in choices])
    used = [{choice.device, choice.prefill_device} - {choice.home} for choice in choices]
    return [host, *(np.array([gpu in devices for devices in used]) for gpu in problem.fit.devices[1:])]


def _sizes(problem: Problem) -> list[int]:
    """Of slots, falling: for all stages, for all layers, for some; two at least."""
    nbytes = problem.fit.weight_bytes
    layers = np.sort(nbytes[:-1] if problem.spec.n_layers else nbytes)
    some = {int(layers[max(0, int(np.ceil(share * len(layers))) - 1)]) for share in SHARES}
    found = sorted({int(nbytes.max()), int(layers[-1])} | some, reverse=True)
    return found if len(found) > 1 else found * 2


def _telling(rings: tuple[int, ...], sizes: list[int]) -> bool:
    """Rings on several GPUs: all alike, or one has none."""
    return len(set(rings)) <= 1 or (0 in rings and sizes[0] not in rings) or (0 in rings and sizes[0] == sizes[1])


def _gpus(problem: Problem) -> tuple[str, ...]:
    return tuple(choice.device for choice in problem.choices if choice.home == choice.device != CPU)
