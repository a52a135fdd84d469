"""One pass through the pipeline of disk, links and computation, for many candidates at once.

The pipeline is a max-plus system (Baccelli, Cohen, Olsder & Quadrat 1992): every start is the latest of the times that
it waits for. Stages are taken in order; whatever a stage waits for belongs to stages before it, so one sweep over the
stages is exact. What does not concern a candidate at a stage is masked by adding ``OFF``: the maximum with it changes
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.simulation.cost import NO_LINK, Cost, PassCost

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

OFF = -np.inf
"""A time that nothing waits for."""


class Copy(NamedTuple):
    """What goes over one GPU's link for a stage: ``(A,)``; the last three are 0 where it is so, else ``OFF``."""

    gpu: int
    copy_s: Floats
    moves: Floats  # copied over this link
    ring: Floats  # into a slot of the GPU's ring
    frees: Floats  # from a slot of the ring in RAM, which is free after the copy


class Step(NamedTuple):
    """What every candidate does for one stage: ``(A,)``."""

    compute_s: Floats
    hop_s: Floats | None  # None: nobody has a GPU
    read_s: Floats  # 0 where nothing is read through the ring in RAM
    ring: Floats  # 0 where it takes a slot of that ring, else OFF
    frees: Floats  # 0 where the computation lets go of that slot, else OFF
    copies: tuple[Copy, ...]


Flow = list[Step]
"""One kind of pass, in stage order."""


@dataclass(frozen=True)
class Ring:
    """When the slots of a ring are free, sorted, ``(slots, A)``: the next unit takes the first."""

    slots: Floats

    @cached_property
    def first(self) -> Floats:
        """``(A,)``: when the next unit may come in."""
        view: Floats = self.slots[0]
        return view

    @cached_property
    def _parts(self) -> tuple[Floats, Floats, Floats]:
        return self.slots[:-1], self.slots[1:], self.slots[-1]

    def release(self, time: Floats) -> None:
        """The first slot was taken and is free again at ``time`` (``OFF``: it was not taken)."""
        low, high, last = self._parts
        np.maximum(low, np.minimum(high, time), out=low)
        np.maximum(last, time, out=last)


@dataclass(frozen=True)
class State:
    """When each resource is free, as views into ``times``, ``(d, A)``.

    ``d``: the computation, the disk, the slots of the ring in RAM; for each GPU its link and the slots of its ring.
    """

    times: Floats
    n_host: int
    n_gpu: int

    @cached_property
    def chain(self) -> Floats:
        """When the next stage may begin to compute."""
        view: Floats = self.times[0]
        return view

    @cached_property
    def disk(self) -> Floats:
        """When the next read may begin."""
        view: Floats = self.times[1]
        return view

    @cached_property
    def host(self) -> Ring:
        """The ring in RAM."""
        return Ring(self.times[2 : 2 + self.n_host])

    @cached_property
    def links(self) -> list[Floats]:
        """When the next copy to each GPU may begin."""
        return list(self.times[2 + self.n_host :: 1 + self.n_gpu])

    @cached_property
    def rings(self) -> list[Ring]:
        """The ring on each GPU."""
        firsts = range(3 + self.n_host, len(self.times), 1 + self.n_gpu)
        return [Ring(self.times[first : first + self.n_gpu]) for first in firsts]


def make_flow(cost: Cost, kind: PassCost, codes: Ints, *, cold: bool = False) -> Flow:
    """One kind of pass for codes ``(A, n)``; ``cold``: the first one, over a prompt, in which what stays comes in."""
    columns = np.ascontiguousarray(codes.T)
    loads = cost.loads & cold
    link = np.where(loads, cost.load_link, kind.link)
    through = cost.streamed | loads
    compute_s = _gather(cost.first_s if cold else kind.compute_s, columns)
    read_s = _gather(cost.read_s[:, None] * through, columns)
    ring, frees = _mask(through, columns), _mask(through & (link == NO_LINK), columns)
    hops = _hops(kind, columns) if cost.n_gpus else [None] * len(columns)
    copies = _copies(cost, np.where(loads, cost.load_s, kind.copy_s), link, loads, through, columns)
    return [Step(*step) for step in zip(compute_s, hops, read_s, ring, frees, copies, strict=True)]


def ring_slots(cost: Cost, candidates: Candidates) -> Ints:
    """``(1 + GPUs, A)``: the slots of the ring in RAM and of that on each GPU."""
    return np.stack([candidates.host_slots, *[candidates.gpu_slots] * cost.n_gpus])


def make_state(slots: Ints, disk_s: float, link_s: float) -> State:
    """When the disk and the ring in RAM, and the links and the GPUs' rings are free; the computation is at 0.

    Slots that do not exist are never free.
    """
    n_host, n_gpu = int(slots[0].max()), int(slots[1:].max(initial=0))
    zeros = np.zeros((1, slots.shape[1]))
    parts = [zeros, zeros + disk_s, _free(slots[0], n_host, disk_s)]
    for gpu_slots in slots[1:]:
        parts += [zeros + link_s, _free(gpu_slots, n_gpu, link_s)]
    return State(np.concatenate(parts), n_host, n_gpu)


def sweep(flow: Flow, state: State, token_s: float) -> None:
    """One pass after the first; ``state`` is changed in place."""
    for step in flow:
        read(step, state)
        compute(step, state, state.disk + step.ring)
    state.chain[:] += token_s


def read(step: Step, state: State) -> None:
    """The disk reads into the ring in RAM as soon as a slot is free."""
    disk = state.disk
    np.maximum(disk, state.host.first + step.ring, out=disk)
    np.add(disk, step.read_s, out=disk)


def compute(step: Step, state: State, ready: Floats) -> None:
    """A stage is copied where it must be, once it is ``ready`` in RAM, and computed; it lets go of its slots."""
    chain, released = state.chain, None
    for copy in step.copies:
        free = state.links[copy.gpu]
        start = np.maximum(ready, state.rings[copy.gpu].first + copy.ring)
        np.maximum(free, start + copy.moves, out=free)
        np.add(free, copy.copy_s, out=free)
        freed = free + copy.frees
        released = freed if released is None else np.maximum(released, freed)
    for copy in step.copies:
        ready = np.maximum(ready, state.links[copy.gpu] + copy.moves)
    if step.hop_s is not None:
        np.add(chain, step.hop_s, out=chain)
    np.maximum(chain, ready, out=chain)
    np.add(chain, step.compute_s, out=chain)
    done = chain + step.frees
    state.host.release(done if released is None else np.maximum(done, released))
    for copy in step.copies:
        state.rings[copy.gpu].release(chain + copy.ring)


def _hops(kind: PassCost, columns: Ints) -> Floats:
    hops = np.zeros(columns.shape)
    hops[1:] = kind.hop_s[columns[:-1], columns[1:]]
    return hops


def _copies(
    cost: Cost, copy_s: Floats, link: Ints, loads: Bools, through: Bools, columns: Ints
) -> list[tuple[Copy, ...]]:
    """For each stage, of the GPUs whose link any candidate uses."""
    each: list[list[Copy]] = [[] for _ in columns]
    for gpu in range(cost.n_gpus):
        here = link == gpu
        if not here[columns].any():
            continue
        rows = (
            _gather(copy_s * here, columns),
            _mask(here, columns),
            _mask(here & ~loads, columns),
            _mask(here & through, columns),
        )
        for stage, row in enumerate(zip(*rows, strict=True)):
            each[stage].append(Copy(gpu, *row))
    return [tuple(copies) for copies in each]


def _gather(table: Floats, columns: Ints) -> Floats:
    """``(n, C)`` and codes ``(n, A)`` to ``(n, A)``."""
    found: Floats = np.take_along_axis(table, columns, axis=1)
    return found


def _mask(choices: Bools, columns: Ints) -> Floats:
    """``(C,)`` and codes ``(n, A)`` to 0 or ``OFF``."""
    found: Floats = np.where(choices, 0.0, OFF)[columns]
    return found


def _free(counts: Ints, n: int, free_s: float) -> Floats:
    return np.where(np.arange(n)[:, None] < counts, free_s, np.inf)
