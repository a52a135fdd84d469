"""The placement that takes the least memory: if even that does not fit, nothing does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from llmrun.checkpoint.spec import UnitKind
from llmrun.planner.choices import Candidates, Choice, stages
from llmrun.planner.plan import CPU, DISK
from llmrun.planner.problem import Problem

Ints = NDArray[np.int64]


def leanest(problem: Problem) -> Candidates:
    """Everything streamed through one slot, and as few layers as it needs on the GPUs; what exceeds least if none fits.

    A layer that a GPU computes has its KV cache there, so the GPUs may hold what the RAM cannot. Layers that differ and
    several GPUs are a problem of packing, for which this is a good way and not always the best.
    """
    rows, best = [_all_on_cpu(problem)], _all_on_cpu(problem)
    for gpu in (choice.device for choice in problem.choices if choice.home == choice.device != CPU):
        if problem.fit.fits(_one_slot([best]))[0]:
            break  # of those that exceed nothing the first is taken
        rows += _with_gpu(problem, best, gpu)
        best = rows[_least(problem, rows)]
    return _one_slot([best])


def _least(problem: Problem, rows: Sequence[Ints]) -> int:
    """Of the rows whose GPUs keep their budgets, the first that exceeds the RAM least."""
    over_bytes = np.maximum(problem.fit.used_bytes(_one_slot(rows)) - problem.fit.budget_bytes, 0)
    gpus_fit = ~over_bytes[:, 1:].any(axis=1)
    return int(np.argmin(np.where(gpus_fit, over_bytes[:, 0], np.iinfo(np.int64).max)))


def _all_on_cpu(problem: Problem) -> Ints:
    return np.full(len(problem.allowed), problem.choices.index(Choice(DISK, CPU, CPU, substitute=problem.substitute)))


def _with_gpu(problem: Problem, row: Ints, gpu: str) -> Iterator[Ints]:
    """One layer more after the other of those on the CPU, for each size that the ring there may have.

    The largest KV caches that fit come first. Where these are the same the largest layers do, which leaves the small
    ones for the smaller rings of other GPUs.
    """
    code = problem.choices.index(Choice(DISK, gpu, gpu))
    size, kv = problem.fit.weight_bytes, problem.fit.kv_bytes
    on_cpu = row == _all_on_cpu(problem)
    layers = [i for i, unit in enumerate(stages(problem.spec)) if on_cpu[i] and unit.kind is UnitKind.LAYER]
    layers.sort(key=lambda i: (-kv[i], -size[i]))
    for slot_bytes in np.unique(size[layers])[::-1]:
        filled, room_bytes = row.copy(), _room_bytes(problem, row, gpu, int(slot_bytes))
        for layer in layers:
            if size[layer] <= slot_bytes and kv[layer] <= room_bytes:
                room_bytes -= int(kv[layer])
                filled[layer] = code
                yield filled.copy()


def _room_bytes(problem: Problem, row: Ints, gpu: str, slot_bytes: int) -> int:
    """For KV caches on a GPU that computes nothing yet, beside a ring of one such slot."""
    fit, layer = problem.fit, problem.fit.weight_bytes.tolist().index(slot_bytes)
    trial = row.copy()
    trial[layer] = problem.choices.index(Choice(DISK, gpu, gpu))
    device = fit.devices.index(gpu)
    used_bytes = int(fit.used_bytes(_one_slot([trial]))[0, device])
    return int(fit.budget_bytes[device]) - used_bytes + int(fit.kv_bytes[layer])


def _one_slot(rows: Sequence[Ints]) -> Candidates:
    ones = np.ones(len(rows), dtype=np.int64)
    return Candidates(np.array(rows), ones, ones)
