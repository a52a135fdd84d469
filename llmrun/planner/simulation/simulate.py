"""The pipeline simulated, for many candidates at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.simulation.cost import Cost
from llmrun.planner.simulation.pipeline import State, Step, compute, make_flow, make_state, read, ring_slots, sweep

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_PASSES = 24
LEAP_EVERY, LEAP_PASSES = 6, 1000
"""What is not even after some passes seldom is soon: a resource that is ahead falls back little by little."""

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
        state = make_state(ring_slots(cost, self.candidates), -filling_s, -filling_s)
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
    """The first pass: at time 0 the startup is over, and everything but the disk is free.

    Until then only reading went on; on an axis of what the disk can read it began at ``-startup_s * startup_rate``.
    """
    flow = make_flow(cost, cost.prefill, candidates.codes, cold=True)
    disk_s = cost.lead_s - cost.startup_s * cost.startup_rate
    state = make_state(ring_slots(cost, candidates), disk_s, 0.0)
    state.chain[:] = cost.idle_s
    early = _Early(cost, candidates)
    for stage, step in enumerate(flow):
        early.read_ahead(step, state, stage)
        read(step, state)
        compute(step, state, early.ready(state, stage))
    chain: Floats = state.chain + cost.token_s - cost.idle_s
    return chain


class _Early:
    """What lives in RAM is read in turn, or ahead of its turn while the ring has no slot for the next unit.

    ``sums[i]``: seconds of reading what lives in RAM of the stages before ``i``. All that was read ahead without a
    pause came in at ``base + sums``.
    """

    def __init__(self, cost: Cost, candidates: Candidates) -> None:
        self._in_ram = cost.in_ram[candidates.codes.T]
        n, count = self._in_ram.shape
        self._read_s = cost.read_s[:, None] * self._in_ram
        self._sums = np.zeros((n + 1, count))
        np.cumsum(self._read_s, axis=0, out=self._sums[1:])
        # All in one sorted row, so that one search serves all; a power of two loses no bits of round figures.
        self._apart = np.arange(count) * 2 ** np.ceil(np.log2(1 + self._sums[-1].max()))
        self._row = (self._sums + self._apart).T.ravel()
        self._front = np.zeros(count, dtype=np.int64)  # what lives in RAM of the stages before has been read
        self._bases = np.full((n, count), np.nan)  # from the stage on where reading ahead began
        self._base = np.zeros(count)

    def read_ahead(self, step: Step, state: State, stage: int) -> None:
        """While there is no slot, whole units further on."""
        np.maximum(self._front, stage, out=self._front)
        rows = np.flatnonzero(state.host.first + step.ring > state.disk)
        front = self._front[rows]
        done, total = self._sums[front, rows], self._sums[-1, rows]
        more = done < total
        rows, front, done, total = rows[more], front[more], done[more], total[more]
        if not len(rows):
            return
        base = state.disk[rows] - done
        target = np.minimum(state.host.first[rows] - base, total) + self._apart[rows]
        back = np.maximum(front, np.searchsorted(self._row, target) - rows * len(self._sums))
        self._bases[front, rows] = base
        self._front[rows] = back
        state.disk[rows] = base + self._sums[back, rows]

    def ready(self, state: State, stage: int) -> Floats:
        """Reads a stage that lives in RAM, if that was not done, and says when the stage is in RAM."""
        was_read = self._front > stage
        state.disk[:] += np.where(was_read, 0.0, self._read_s[stage])
        self._base = np.where(np.isnan(self._bases[stage]), self._base, self._bases[stage])
        return np.where(was_read & self._in_ram[stage], self._base + self._sums[stage + 1], state.disk)


def _period(cost: Cost, candidates: Candidates) -> Floats:
    """Passes until every resource moves on by the same time.

    Then that time is the period, whatever came before: a monotone and homogeneous map has one eigenvalue only.
    """
    slots = _useful_slots(cost, candidates)
    state = make_state(slots, 0.0, 0.0)
    live = _live(cost, candidates, state)
    flow = make_flow(cost, cost.decode, candidates.codes)
    period = np.zeros(len(candidates))
    rows = np.arange(len(candidates))
    past: list[Floats] = []
    for number in range(1, MAX_PASSES + 1):
        past = [state.times.copy(), *past[: LEAP_EVERY - 1]]
        sweep(flow, state, cost.token_s)
        leap = number % LEAP_EVERY == 0
        period[rows], even = _settle(state.times, past if leap else past[:1], live)
        left = np.flatnonzero(~even)
        if not len(left):
            break
        if len(left) < len(rows):
            rows, live, past = rows[left], live[:, left], [times[:, left] for times in past]
            flow = make_flow(cost, cost.decode, candidates.codes[rows])
            state = State(np.ascontiguousarray(state.times[:, left]), state.n_host, state.n_gpu)
        if leap:
            state.times[live] += LEAP_PASSES * (state.times[live] - past[0][live])
            past = []
    return period


def _settle(times: Floats, past: list[Floats], live: Bools) -> tuple[Floats, Bools]:
    """By how much the computation moves on in a pass, and whether all that is ``live`` does, over some of the past."""
    period, settled = times[0] - past[0][0], np.zeros(times.shape[1], dtype=bool)
    now = np.where(live, times, 0.0)
    for passes, before in enumerate(past, start=1):
        moved = now - np.where(live, before, 0.0)
        lowest = np.where(live, moved, np.inf).min(axis=0)
        even = (moved.max(axis=0) - lowest <= TOLERANCE * lowest) & ~settled
        period[even] = moved[0, even] / passes
        settled |= even
    return period, settled


def _useful_slots(cost: Cost, candidates: Candidates) -> Ints:
    """``(1 + GPUs, A)``: the rings without the slots beyond what two passes stream, which change no period."""
    carried = [cost.streamed, *(cost.decode.link == gpu for gpu in range(cost.n_gpus))]
    streamed = np.array([choices[candidates.codes].sum(axis=1) for choices in carried])
    useful: Ints = np.minimum(ring_slots(cost, candidates), np.maximum(2 * streamed, 1))
    return useful


def _live(cost: Cost, candidates: Candidates, state: State) -> Bools:
    """``(d, A)``: the times that a candidate depends on, pass after pass."""
    live = np.isfinite(state.times)
    live[1 : 2 + state.n_host] &= cost.streamed[candidates.codes].any(axis=1)
    for gpu in range(cost.n_gpus):
        first = 2 + state.n_host + gpu * (1 + state.n_gpu)
        live[first : first + 1 + state.n_gpu] &= (cost.decode.link == gpu)[candidates.codes].any(axis=1)
    return live
