"""Where searches begin: relaxed plans in the most promising frames, rounded to candidates in several arrangements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, permutations, product

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates, join
from llmrun.planner.guidance.frames import Frame, first_frames, neighbours
from llmrun.planner.guidance.pace import paced_codes
from llmrun.planner.guidance.polish import Polisher
from llmrun.planner.guidance.prices import Market, Prices
from llmrun.planner.guidance.sequence import diffuse, go_round
from llmrun.planner.guidance.shape import Shaper
from llmrun.planner.plan import Slots
from llmrun.planner.problem import Problem
from llmrun.planner.stage_types import StageTypes, stage_types

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Random = np.random.Generator

FRAMES = 8  # the most promising
TURNS = (1, 2, 0)  # how often the computation goes round the devices; 0: as the relaxed plan has it
ORDERS = 6
CLOSED = 1e-30  # never drawn, unless there is nothing else
OFFSETS = (0.0, 0.5, 1.0)  # of the first turns of what is paced by the clock
ANYTHING = 1e-3  # of a share, so that where the relaxed plan has nothing the next best is taken


@dataclass(frozen=True)
class Guide:
    """The relaxed plans of a problem, most promising first (``F`` of them), and how to make candidates of them."""

    market: Market
    prices: tuple[Prices, ...]

    @property
    def problem(self) -> Problem:
        """What is planned."""
        return self.market.problem

    @cached_property
    def shaper(self) -> Shaper:
        """Fits candidates by what the prices say."""
        worth = np.stack([prices.worth for prices in self.prices])
        return Shaper(self.problem, worth, np.stack([prices.frame.usable(self.problem) for prices in self.prices]))

    @cached_property
    def log_eta(self) -> Floats:
        """``(F, n, C)``, 0 or below: what an ant sees, less of what costs a stage more, its bytes paid for."""
        reduced = np.stack([prices.reduced_s for prices in self.prices])
        finite = np.where(np.isfinite(reduced), reduced, 0.0)
        scale = finite.sum(axis=(1, 2)) / np.maximum((finite > 0).sum(axis=(1, 2)), 1)
        scale = np.maximum(scale, 1e-12)[:, None, None] / 4
        open_ = np.isfinite(reduced) & self.problem.allowed
        return np.log(np.where(open_, scale / (scale + finite), CLOSED))

    def rounded(self) -> tuple[Candidates, Ints]:
        """Candidates that fit: the relaxed plans in all arrangements; and which frame each is of."""
        slots = [prices.frame.slots for prices in self.prices]
        shares = np.stack([prices.shares for prices in self.prices])
        return self.arranged(shares, np.arange(len(self.prices)), slots)

    def whole(self, candidates: Candidates, frames: Ints, random: Random) -> tuple[Candidates, Ints]:
        """For each frame the plan of whole stages, or the candidate with better counts, in all arrangements."""
        plans = []
        for row, frame in enumerate(frames.tolist()):
            codes = self.market.whole(self.prices[frame])
            if codes is None:
                codes = self.polisher.polish(candidates.take(np.array([row])), random).codes[0]
            plans.append(codes)
        exact = [self._exact(codes) for codes in plans]
        at = np.repeat(frames, [len(rows) for rows in exact])
        shaped = self.shaper.shape(self._with_slots(np.concatenate(exact), at), at)
        shares = np.stack([self._shares(codes) for codes in plans])
        drawn, of_frame = self.arranged(shares, frames, [self.prices[frame].frame.slots for frame in frames])
        return join([shaped, drawn]), np.concatenate([at, of_frame])

    def _exact(self, codes: Ints) -> Ints:
        """``(M, n)``: the same choices of each type in all arrangements, then paced by the clock."""
        counts = np.zeros((len(self._types), self.problem.allowed.shape[1]), dtype=np.int64)
        np.add.at(counts, (self._types.of_stage, codes), 1)
        around = [go_round(self._types, codes, self._device_of, order, turns) for turns, order in self._arrangements]
        paced = [paced_codes(self.problem.costs[0], self._types.of_stage, counts, offset) for offset in OFFSETS]
        return np.unique(np.array(around + paced), axis=0)

    def _with_slots(self, codes: Ints, frames: Ints) -> Candidates:
        slots = [self.prices[frame].frame.slots for frame in frames]
        return Candidates(codes, np.array([s.host for s in slots]), np.array([s.gpu for s in slots]))

    def arranged(self, shares: Floats, frames: Ints, slots: Sequence[Slots]) -> tuple[Candidates, Ints]:
        """``K`` plans, as shares ``(K, n, C)``, in all arrangements; and which frame each candidate is of."""
        plans = list(product(range(len(frames)), self._arrangements))
        at = np.array([k for k, _ in plans])
        devices = np.stack([self._segments(shares[k], order, turns) for k, (turns, order) in plans])
        likely = shares[at] + ANYTHING * shares.mean(axis=1)[at][:, None, :] + ANYTHING**2
        usable = self.shaper.usable[frames[at]]
        open_ = usable & ((self._device_of == devices[:, :, None]) | (devices[:, :, None] < 0))
        open_ |= ~open_.any(axis=2, keepdims=True) & usable
        codes = diffuse(np.where(open_, likely, 0.0))
        drawn = Candidates(codes, np.array([slots[k].host for k in at]), np.array([slots[k].gpu for k in at]))
        return self.shaper.shape(drawn, frames[at]), frames[at]

    def _shares(self, codes: Ints) -> Floats:
        """``(n, C)``: of all stages of a type, which share makes each choice."""
        counts = np.zeros((len(self._types), self.problem.allowed.shape[1]))
        np.add.at(counts, (self._types.of_stage, codes), 1.0)
        found: Floats = (counts / self._types.size[:, None])[self._types.of_stage]
        return found

    def _segments(self, shares: Floats, order: tuple[int, ...], turns: int) -> Ints:
        """``(n,)``: the device of each stage, every one with its share in each turn; -1 where any will do."""
        n = len(shares)
        if not turns:
            return np.full(n, -1)
        computed = (shares @ np.eye(int(self._device_of.max()) + 1)[self._device_of]).mean(axis=0)[list(order)]
        edges = np.cumsum(np.tile(computed / computed.sum() / turns, turns)) * n
        at = np.searchsorted(edges, np.arange(n) + 0.5)
        return np.tile(np.array(order), turns)[np.minimum(at, len(edges) - 1)]

    @cached_property
    def polisher(self) -> Polisher:
        """Improves counts."""
        return Polisher(self.problem)

    @cached_property
    def _types(self) -> StageTypes:
        return stage_types(self.problem)

    @cached_property
    def _arrangements(self) -> list[tuple[int, tuple[int, ...]]]:
        devices = sorted(set(self._device_of.tolist()))
        orders = list(permutations(devices))[:ORDERS]
        if len(orders) == 1:
            return [(0, orders[0])]
        return [(turns, order) for turns in TURNS for order in (orders if turns else orders[:1])]

    @cached_property
    def _device_of(self) -> Ints:
        """``(C,)``: the CPU 0, GPUs from 1 on."""
        return self.problem.costs[0].decode.device


def make_guide(problem: Problem) -> Guide:
    """Relaxed plans in the frames around the best with the largest ring in RAM that there is room for."""
    market = Market(problem)
    first = first_frames(problem)
    found: dict[Frame, Prices | None] = {}
    for _, group in groupby(first, key=lambda frame: frame.host_bytes):
        found |= {frame: market.prices(frame) for frame in group}
        if best := _sorted(found.values()):
            near = [frame for frame in neighbours(problem, best[0].frame) if frame not in found]
            found |= {frame: market.prices(frame) for frame in near}
            break
    return Guide(market, tuple(_varied(_sorted(found.values()))[:FRAMES]) or (market.unpriced(first[0]),))


def _varied(found: Sequence[Prices]) -> list[Prices]:
    """The best with each number of slots, then the second best with each, ...: the fewer slots, the more waiting."""
    rank: dict[Slots, int] = {}
    ranked = []
    for prices in found:
        rank[prices.frame.slots] = rank.get(prices.frame.slots, 0) + 1
        ranked.append((rank[prices.frame.slots], prices))
    return [prices for _, prices in sorted(ranked, key=lambda pair: pair[0])]


def _sorted(found: Iterable[Prices | None]) -> list[Prices]:
    return sorted((prices for prices in found if prices), key=lambda prices: prices.bound_s)
