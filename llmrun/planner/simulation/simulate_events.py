"""The pipeline of one candidate, event by event: slow and plain, to hold ``simulate`` against.

Every resource looks, whenever anything has happened, whether it can begin its next piece of work.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from llmrun.planner.simulation.cost import NO_LINK, Cost, PassCost

PASSES = 240
AVERAGED = 120
"""The last passes, over which the period is averaged: a multiple of many cycles."""

Work = tuple[int, int]
"""Pass and stage."""


def simulate_events(cost: Cost, codes: Sequence[int], host_slots: int, gpu_slots: int) -> tuple[float, float, float]:
    """``(ttft_s, warm_ttft_s, tpot_s)`` of one candidate, as ``simulate.Times`` has them."""
    first = _Run(cost, [cost.prefill], codes, host_slots, gpu_slots, cold=True)
    request_s = cost.startup_s + cost.idle_s
    first.let_compute(request_s)
    cold_s = first.finish() - request_s

    warm = _Run(_started(cost), [cost.prefill], codes, host_slots, gpu_slots, cold=False)
    idle_s = warm.finish()  # until the rings are full
    warm.let_compute(idle_s)
    warm_s = warm.finish() - idle_s

    decode = _Run(_started(cost), [cost.decode] * PASSES, codes, host_slots, gpu_slots, cold=False)
    decode.let_compute(0.0)
    decode.finish()
    period_s = (decode.ends[-1] - decode.ends[-1 - AVERAGED]) / AVERAGED
    return cold_s + cost.token_s, warm_s + cost.token_s, period_s


def _started(cost: Cost) -> Cost:
    return replace(cost, startup_s=0.0, lead_s=0.0)


class _Run:
    """Some passes. ``cold``: in the first of them everything is still on disk."""

    def __init__(
        self, cost: Cost, passes: list[PassCost], codes: Sequence[int], host_slots: int, gpu_slots: int, *, cold: bool
    ) -> None:
        self.ends: list[float] = []  # of each pass
        self._cost, self._passes, self._codes, self._cold = cost, passes, codes, cold
        self._works = [(number, stage) for number in range(len(passes)) for stage in range(len(codes))]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._counter = itertools.count()  # what happens at once happens in order
        self._now = 0.0
        self._host_free = host_slots
        self._gpu_free = [gpu_slots] * cost.n_gpus
        self._to_read = [work for work in self._works if self._is_read(work)]
        self._to_copy = [[work for work in self._works if self._link(work) == gpu] for gpu in range(cost.n_gpus)]
        self._to_compute = list(self._works)
        self._in_ram: set[Work] = set()
        self._on_gpu: set[Work] = set()
        self._disk_idle = False
        self._link_idle = [False] * cost.n_gpus
        self._chain_idle = False
        self._at(self._read_end(cost.lead_s), self._disk_is_idle)
        for gpu in range(cost.n_gpus):
            self._at(cost.startup_s, partial(self._link_is_idle, gpu))

    def let_compute(self, at_s: float) -> None:
        """The first stage may be computed from then on."""
        self._at(at_s, self._chain_is_idle)

    def finish(self) -> float:
        """Go on until nothing can happen any more; the time of the last event."""
        while self._events:
            self._now = self._events[0][0]
            while self._events and self._events[0][0] == self._now:
                heapq.heappop(self._events)[2]()
            self._begin_compute()
            for gpu in range(self._cost.n_gpus):
                self._begin_copy(gpu)
            self._begin_read()
        return self._now

    # What each piece of work needs

    def _is_first(self, work: Work) -> bool:
        return self._cold and work[0] == 0

    def _is_read(self, work: Work) -> bool:
        return self._is_first(work) or bool(self._cost.streamed[self._codes[work[1]]])

    def _lives_in_ram(self, work: Work) -> bool:
        return bool(self._cost.in_ram[self._codes[work[1]]])

    def _is_load(self, work: Work) -> bool:
        return self._is_first(work) and self._cost.load_link[self._codes[work[1]]] != NO_LINK

    def _link(self, work: Work) -> int:
        code = self._codes[work[1]]
        return int(self._cost.load_link[code] if self._is_load(work) else self._passes[work[0]].link[code])

    def _through_ring(self, work: Work) -> bool:
        return self._is_read(work) and not self._lives_in_ram(work)

    # The disk

    def _begin_read(self) -> None:
        if not self._disk_idle or not self._to_read:
            return
        work = self._to_read[0]
        if self._through_ring(work):
            if self._host_free:
                self._host_free -= 1
            elif (ahead := self._next_in_ram()) is not None:
                work = ahead
            else:
                return
        self._to_read.remove(work)
        self._disk_idle = False
        self._at(self._read_end(float(self._cost.read_s[work[1]])), partial(self._has_read, work))

    def _next_in_ram(self) -> Work | None:
        """What can be read while the ring is full."""
        if not self._cold:
            return None
        return next((work for work in self._to_read if self._is_first(work) and self._lives_in_ram(work)), None)

    def _read_end(self, seconds: float) -> float:
        """When a read that begins now ends: during the startup it goes on at part of its speed."""
        cost = self._cost
        within_s = max(0.0, cost.startup_s - self._now) * cost.startup_rate
        if seconds <= within_s:
            return self._now + seconds / cost.startup_rate
        return max(self._now, cost.startup_s) + seconds - within_s

    def _has_read(self, work: Work) -> None:
        self._in_ram.add(work)
        self._disk_is_idle()

    def _disk_is_idle(self) -> None:
        self._disk_idle = True

    # The links

    def _begin_copy(self, gpu: int) -> None:
        if not self._link_idle[gpu] or not self._to_copy[gpu]:
            return
        work = self._to_copy[gpu][0]
        there = work in self._in_ram or not self._is_read(work)
        if not there or (not self._is_load(work) and not self._gpu_free[gpu]):
            return
        self._to_copy[gpu].pop(0)
        self._link_idle[gpu] = False
        code = self._codes[work[1]]
        if self._is_load(work):
            seconds = self._cost.load_s[work[1], code]
        else:
            self._gpu_free[gpu] -= 1
            seconds = self._passes[work[0]].copy_s[work[1], code]
        self._at(self._now + float(seconds), partial(self._has_copied, gpu, work))

    def _has_copied(self, gpu: int, work: Work) -> None:
        self._on_gpu.add(work)
        self._host_free += self._through_ring(work)
        self._link_is_idle(gpu)

    def _link_is_idle(self, gpu: int) -> None:
        self._link_idle[gpu] = True

    # The computation

    def _begin_compute(self) -> None:
        if not self._chain_idle or not self._to_compute or not self._is_there(self._to_compute[0]):
            return
        work = self._to_compute.pop(0)
        self._chain_idle = False
        table = self._cost.first_s if self._is_first(work) else self._passes[work[0]].compute_s
        seconds = table[work[1], self._codes[work[1]]]
        self._at(self._now + float(seconds), partial(self._has_computed, work))

    def _is_there(self, work: Work) -> bool:
        if self._link(work) != NO_LINK:
            return work in self._on_gpu
        return work in self._in_ram or not self._is_read(work)

    def _has_computed(self, work: Work) -> None:
        number, stage = work
        link = self._link(work)
        if link == NO_LINK:
            self._host_free += self._through_ring(work)
        elif not self._is_load(work):
            self._gpu_free[link] += 1
        if stage == len(self._codes) - 1:
            self.ends.append(self._now)
            pause_s = self._cost.token_s
        else:
            pause_s = float(self._passes[number].hop_s[self._codes[stage], self._codes[stage + 1]])
        if self._to_compute:
            self._at(self._now + pause_s, self._chain_is_idle)

    def _chain_is_idle(self) -> None:
        self._chain_idle = True

    def _at(self, time_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._counter), action))
