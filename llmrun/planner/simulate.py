"""The pipeline simulated, for many candidates at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.cost import Cost
from llmrun.planner.pipeline import OFF, State, compute_stage, make_flow, make_state, read_stage, sweep

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_PASSES = 64
CYCLES = (1, 2, 3, 4)
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Times:
    """Seconds of each candidate, ``(A,)``, each simulated when it is first asked for.

    Attributes:
        ttft_s: of a first request made as soon as the engine is ready: the weights are still coming in.
        warm_ttft_s: of a later request: what is resident is there, the rings are full.
        tpot_s: the steady-state period of a decoded token.
    """

    cost: Cost
    candidates: Candidates

    @cached_property
    def ttft_s(self) -> Floats:
        """Counted from the request on."""
        return _cold_pass(self.cost, self.candidates)

    @cached_property
    def warm_ttft_s(self) -> Floats:
        """A pass that finds everything free for so long that the rings have been filled."""
        cost = self.cost
        filling_s = float(cost.read_s.sum() + cost.prefill.copy_s.max(axis=1).sum())
        state = make_state(cost, self.candidates, -filling_s, -filling_s)
        sweep(make_flow(cost, cost.prefill, self.candidates.codes), state, cost.token_s)
        return state.chain

    @cached_property
    def tpot_s(self) -> Floats:
        """Mean over the passes of a cycle, where they repeat in a cycle of several."""
        return _period(self.cost, self.candidates)


def simulate(cost: Cost, candidates: Candidates) -> Times:
    """The times of each candidate."""
    return Times(cost, candidates)


def _cold_pass(cost: Cost, candidates: Candidates) -> Floats:
    """The first pass, from the end of the startup on: at time 0 everything but the disk is free.

    Until then only reading went on; on an axis of what the disk can read it began at ``-startup_s * startup_rate``.
    """
    flow = make_flow(cost, cost.prefill, candidates.codes, cold=True)
    state = make_state(cost, candidates, cost.lead_s - cost.startup_s * cost.startup_rate, 0.0)
    state.chain[:] = cost.idle_s
    early = _Early(cost, candidates)
    for stage in range(len(cost.read_s)):
        early.read_ahead(flow.ring[stage] == 0, state, stage)
        read_stage(flow, state, stage)
        compute_stage(flow, state, stage, early.ready(state, stage))
    chain: Floats = state.chain + cost.token_s - cost.idle_s
    return chain


class _Early:
    """What lives in RAM is read in turn, or ahead of its turn while the ring has no slot for the next unit."""

    def __init__(self, cost: Cost, candidates: Candidates) -> None:
        self._in_ram = cost.in_ram[candidates.codes.T]
        n, count = self._in_ram.shape
        self._read_s = cost.read_s[:, None] * self._in_ram
        self._sum_s = np.zeros((n + 1, count))  # reading what lives in RAM of the stages before
        np.cumsum(self._read_s, axis=0, out=self._sum_s[1:])
        self._front = np.zeros(count, dtype=np.int64)  # what lives in RAM of the stages before has been read
        self._ready = np.zeros((n, count))

    def read_ahead(self, rings: Bools, state: State, stage: int) -> None:
        """While there is no slot, whole units further on."""
        self._front = np.maximum(self._front, stage)
        rows = np.flatnonzero(rings & (state.host[0] > state.disk) & (self._front < len(self._read_s)))
        if not len(rows):
            return
        sums, front = self._sum_s[:, rows], self._front[rows]
        done = sums[front, np.arange(len(rows))]
        start = state.disk[rows]
        back = np.minimum((sums < done + state.host[0, rows] - start).sum(axis=0), len(sums) - 1)
        back = np.maximum(back, front)
        stages = np.arange(len(sums) - 1)[:, None]
        inside = (stages >= front) & (stages < back)
        self._ready[:, rows] = np.where(inside, start - done + sums[1:], self._ready[:, rows])
        state.disk[rows] = start - done + sums[back, np.arange(len(rows))]
        self._front[rows] = back

    def ready(self, state: State, stage: int) -> Floats:
        """Reads a stage that lives in RAM, if that was not done, and says when the stage is in RAM."""
        was_read = self._in_ram[stage] & (self._front > stage)
        state.disk[:] += np.where(was_read, 0.0, self._read_s[stage])
        ready: Floats = np.where(was_read, self._ready[stage], state.disk)
        return ready


def _period(cost: Cost, candidates: Candidates) -> Floats:
    """Passes until every resource moves on by the same time.

    Then that time is the period, whatever came before (an eigenvalue of a monotone, homogeneous map is unique).
    """
    flow = make_flow(cost, cost.decode, candidates.codes)
    state = make_state(cost, candidates, 0.0, 0.0)
    live = _live(cost, candidates, state)
    period = np.zeros(len(candidates))
    rows = np.arange(len(candidates))
    past = [state.times.copy()]
    for _ in range(MAX_PASSES):
        sweep(flow, state, cost.token_s)
        period[rows], settled = _drift(past, state, live)
        if settled.all():
            break
        past = [*past[1 - max(CYCLES) :], state.times.copy()]
        if settled.any():
            left = np.flatnonzero(~settled)
            rows, flow, live = rows[left], flow.take(left), live[:, left]
            state = State(np.ascontiguousarray(state.times[:, left]), state.n_host, state.n_gpu)
            past = [times[:, left] for times in past]
    return period


def _drift(past: list[Floats], state: State, live: Bools) -> tuple[Floats, Bools]:
    """By how much the computation moves on in a pass, and whether all that is ``live`` does, over one of the cycles."""
    settled = np.zeros(live.shape[1], dtype=bool)
    period = np.zeros(live.shape[1])
    for cycle in CYCLES[: len(past)]:
        moved = np.where(live, state.times, 0.0) - np.where(live, past[-cycle], 0.0)
        lowest = np.where(live, moved, np.inf).min(axis=0)
        highest = np.where(live, moved, OFF).max(axis=0)
        now = highest - lowest <= TOLERANCE * highest
        period = np.where(settled, period, moved[0] / cycle)
        settled |= now
    return period, settled


def _live(cost: Cost, candidates: Candidates, state: State) -> Bools:
    """``(d, A)``: the times that a candidate depends on, pass after pass."""
    live = np.isfinite(state.times)
    reads = cost.streamed[candidates.codes].any(axis=1)
    live[1 : 2 + state.n_host] &= reads
    for gpu in range(cost.n_gpus):
        first = 2 + state.n_host + gpu * (1 + state.n_gpu)
        live[first : first + 1 + state.n_gpu] &= (cost.decode.link == gpu)[candidates.codes].any(axis=1)
    return live
