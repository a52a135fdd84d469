"""One pass through the pipeline of disk, links and computation, for many candidates at once.

The pipeline is a max-plus system: every start is the latest of the times that it waits for. Stages are taken in order;
whatever a stage waits for belongs to stages before it, so one sweep over the stages is exact. What does not concern a
candidate at a stage is masked by adding ``OFF``: the maximum with it changes nothing.

Times of a ring's slots are kept sorted: the next unit takes the first, and a release goes where it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.cost import NO_LINK, Cost, PassCost

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

OFF = -np.inf
"""A time that nothing waits for."""


@dataclass(frozen=True)
class LinkFlow:
    """What goes over one GPU's link in a pass: all ``(n, A)``; the last three are 0 where it is so, else ``OFF``."""

    gpu: int
    copy_s: Floats
    moves: Floats  # copied over this link
    ring: Floats  # into a slot of the GPU's ring
    frees: Floats  # from a slot of the ring in RAM, free after the copy

    def take(self, rows: Ints) -> LinkFlow:
        """Of some of the candidates."""
        return LinkFlow(self.gpu, self.copy_s[:, rows], self.moves[:, rows], self.ring[:, rows], self.frees[:, rows])


@dataclass(frozen=True)
class Flow:
    """What every candidate does at every stage of one kind of pass: all ``(n, A)``."""

    compute_s: Floats
    hop_s: Floats
    read_s: Floats  # 0 where nothing is read through the ring
    ring: Floats  # 0 where it takes a slot of the ring in RAM, else OFF
    frees: Floats  # 0 where the computation lets go of that slot, else OFF
    links: tuple[LinkFlow, ...]

    def take(self, rows: Ints) -> Flow:
        """Of some of the candidates."""
        return Flow(
            self.compute_s[:, rows],
            self.hop_s[:, rows],
            self.read_s[:, rows],
            self.ring[:, rows],
            self.frees[:, rows],
            tuple(link.take(rows) for link in self.links),
        )


@dataclass(frozen=True)
class State:
    """When each resource is free, ``(A,)``, and each slot of a ring, sorted, ``(slots, A)``.

    All are views into ``times``, ``(d, A)``. ``chain``: when the next stage may begin to compute.
    """

    times: Floats
    n_host: int
    n_gpu: int

    @property
    def chain(self) -> Floats:
        """The computation."""
        view: Floats = self.times[0]
        return view

    @property
    def disk(self) -> Floats:
        """The disk."""
        view: Floats = self.times[1]
        return view

    @property
    def host(self) -> Floats:
        """The ring in RAM."""
        return self.times[2 : 2 + self.n_host]

    def link(self, gpu: int) -> Floats:
        """The link of a GPU."""
        view: Floats = self.times[self._at(gpu)]
        return view

    def ring(self, gpu: int) -> Floats:
        """The ring on a GPU."""
        return self.times[self._at(gpu) + 1 : self._at(gpu + 1)]

    def _at(self, gpu: int) -> int:
        return 2 + self.n_host + gpu * (1 + self.n_gpu)


def make_flow(cost: Cost, kind: PassCost, codes: Ints, *, cold: bool = False) -> Flow:
    """The flow of one kind of pass for codes ``(A, n)``; ``cold``: in the first one, GPUs load what lives there."""
    columns = np.ascontiguousarray(codes.T)
    ring = cost.streamed | (cost.load_link != NO_LINK) if cold else cost.streamed
    link = np.where(kind.link == NO_LINK, cost.load_link, kind.link) if cold else kind.link
    copy_s = np.where(kind.link == NO_LINK, cost.load_s, kind.copy_s) if cold else kind.copy_s
    hop_s = np.zeros(columns.shape)
    hop_s[1:] = kind.hop_s[columns[:-1], columns[1:]]
    return Flow(
        compute_s=_gather(kind.compute_s, columns),
        hop_s=hop_s,
        read_s=_gather(cost.read_s[:, None] * ring, columns),
        ring=_mask(ring, columns),
        frees=_mask(ring & (link == NO_LINK), columns),
        links=tuple(
            LinkFlow(
                gpu,
                _gather(copy_s * (link == gpu), columns),
                _mask(link == gpu, columns),
                _mask(kind.link == gpu, columns),
                _mask(ring & (link == gpu), columns),
            )
            for gpu in range(cost.n_gpus)
            if (link == gpu)[codes].any()
        ),
    )


def make_state(cost: Cost, candidates: Candidates, disk_s: float, link_s: float) -> State:
    """When the disk and the ring in RAM, and the links and the GPUs' rings are free; the computation is at 0.

    Slots that do not exist are never free.
    """
    n_host, n_gpu = int(candidates.host_slots.max()), int(candidates.gpu_slots.max())
    zeros = np.zeros((1, len(candidates)))
    parts = [zeros, zeros + disk_s, _slots(candidates.host_slots, n_host, disk_s)]
    for _ in range(cost.n_gpus):
        parts += [zeros + link_s, _slots(candidates.gpu_slots, n_gpu, link_s)]
    return State(np.concatenate(parts), n_host, n_gpu)


def sweep(flow: Flow, state: State, token_s: float) -> None:
    """One pass after the first; ``state`` is changed in place."""
    for stage in range(len(flow.compute_s)):
        read_stage(flow, state, stage)
        compute_stage(flow, state, stage, state.disk + flow.ring[stage])
    state.chain[:] += token_s


def read_stage(flow: Flow, state: State, stage: int) -> None:
    """The disk reads a stage into the ring in RAM as soon as a slot is free."""
    np.maximum(state.disk, state.host[0] + flow.ring[stage], out=state.disk)
    np.add(state.disk, flow.read_s[stage], out=state.disk)


def compute_stage(flow: Flow, state: State, stage: int, ready: Floats) -> None:
    """A stage is copied where it must be, once it is ``ready`` in RAM, and computed; it lets go of its slots."""
    copied = np.full_like(ready, OFF)
    for link in flow.links:
        free = state.link(link.gpu)
        start = np.maximum(ready, state.ring(link.gpu)[0] + link.ring[stage])
        np.maximum(free, start + link.moves[stage], out=free)
        np.add(free, link.copy_s[stage], out=free)
        np.maximum(copied, free + link.frees[stage], out=copied)
    for link in flow.links:
        ready = np.maximum(ready, state.link(link.gpu) + link.moves[stage])
    chain = state.chain
    np.add(chain, flow.hop_s[stage], out=chain)
    np.maximum(chain, ready, out=chain)
    np.add(chain, flow.compute_s[stage], out=chain)
    _release(state.host, np.maximum(copied, chain + flow.frees[stage]))
    for link in flow.links:
        _release(state.ring(link.gpu), chain + link.ring[stage])


def _release(ring: Floats, time: Floats) -> None:
    """The first slot of a sorted ring was taken and is free again at ``time`` (``OFF``: it was not taken)."""
    np.maximum(ring[:-1], np.minimum(ring[1:], time), out=ring[:-1])
    np.maximum(ring[-1], time, out=ring[-1])


def _gather(table: Floats, columns: Ints) -> Floats:
    """``(n, C)`` and codes ``(n, A)`` to ``(n, A)``."""
    found: Floats = np.take_along_axis(table, columns, axis=1)
    return found


def _mask(choices: Bools, columns: Ints) -> Floats:
    """``(C,)`` and codes ``(n, A)`` to 0 or ``OFF``."""
    found: Floats = np.where(choices, 0.0, OFF)[columns]
    return found


def _slots(counts: Ints, n: int, free_s: float) -> Floats:
    return np.where(np.arange(n)[:, None] < counts, free_s, np.inf)
