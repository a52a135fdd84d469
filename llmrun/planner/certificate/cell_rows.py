"""What holds for all plans of a cell, as linear rows over how many stages of a type make each choice.

The circuits are those of ``time_rows``; here slots are known, and so is the longest move through each ring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.certificate.cells import Cell
from llmrun.planner.certificate.room import Room
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Problem
from llmrun.planner.simulation.cost import NO_LINK, Cost
from llmrun.planner.stage_types import StageTypes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MEMORY = -1
SHARES = (1 / 3, 2 / 3)  # of moves, the longest of which is counted in a row of its own


class Rows(NamedTuple):
    """``R`` rows over ``T x C`` counts.

    A time is at least ``table @ counts + constant``; memory has ``table @ counts <= -constant``. ``of``: ``(R,)``, the
    number of the time, or ``MEMORY``. ``open``: ``(T, C)``, which choices there are.
    """

    open: Bools
    table: Floats
    constant: Floats
    of: Ints


class Moves(NamedTuple):
    """What goes through one ring, or through several one after the other, for a token.

    ``moved``: ``(C,)``; ``move_s``: ``(T, C)``; ``free``: ``(C,)``, slots that are not held by a stage that computes;
    ``slots``: all of them.
    """

    name: str
    moved: Bools
    move_s: Floats
    free: Ints
    slots: int


@dataclass(frozen=True)
class CellRows:
    """The rows of one problem.

    Attributes:
        weight: of the first pass, of a later one and of the period, each in the objective of one scenario.
    """

    problem: Problem
    types: StageTypes
    weight: tuple[float, float, float]
    _kept: dict[object, Floats] = field(default_factory=dict)

    def rows(self, cell: Cell) -> Rows:
        """Of one cell."""
        open_ = self.room.open(cell)
        found = _Found(self.room.tables, self.room.constants(cell))
        for number, cost in enumerate(self.problem.costs):
            scenario = _Scenario(self, cost, cell, open_, number)
            parts = (scenario.cold, scenario.warm, scenario.period)
            for kind, (weight, part) in enumerate(zip(self.weight, parts, strict=True)):
                if weight:
                    at = sum(1 for w in self.weight if w) * number + sum(1 for w in self.weight[:kind] if w)
                    found.add(at, weight, part())
        return found.rows(open_)

    @cached_property
    def room(self) -> Room:
        """Memory."""
        return Room(self.problem, self.types)

    def kept(self, key: object, make: Callable[[], Floats]) -> Floats:
        """A table ``(T x C,)``, made once."""
        if key not in self._kept:
            self._kept[key] = np.ascontiguousarray(np.broadcast_to(make(), self.room.shape)).ravel()
        return self._kept[key]


class _Found:
    """Rows as they are put together."""

    def __init__(self, tables: list[Floats], constants: list[float]) -> None:
        self._tables, self._constants, self._of = list(tables), constants, [MEMORY] * len(tables)

    def add(self, number: int, weight: float, rows: Iterator[tuple[Floats, float]]) -> None:
        """Rows of one time, weighted."""
        for table, constant in rows:
            self._tables.append(table * weight)
            self._constants.append(constant * weight)
            self._of.append(number)

    def rows(self, open_: Bools) -> Rows:
        """All."""
        return Rows(open_, np.array(self._tables), np.array(self._constants), np.array(self._of))


@dataclass(frozen=True)
class _Scenario:
    """The rows of one scenario in one cell: tables and constants in seconds; the same rows in every cell."""

    rows: CellRows
    cost: Cost
    cell: Cell
    open: Bools
    number: int

    def period(self) -> Iterator[tuple[Floats, float]]:
        """A decoded token, tokens following one another."""
        cost, kind = self.cost, self.cost.decode
        compute_s, copy_s, read_s = self._compute_s, self._copy_s, self._read_s
        # each resource does one thing at a time
        yield self._kept("compute", lambda: compute_s), cost.token_s
        yield self._kept("read", lambda: read_s * cost.streamed), 0.0
        # a slot in RAM is held from the start of reading to the end of the copy or the computation
        held_s = self._kept(
            "held", lambda: (read_s + np.where(kind.link == NO_LINK, compute_s, copy_s)) * cost.streamed
        )
        yield held_s / self._host_slots, 0.0
        for gpu in range(cost.n_gpus):
            moved = kind.link == gpu
            yield self._kept(("copy", gpu), lambda moved=moved: copy_s * moved), 0.0  # type: ignore[misc]
            held_s = self._kept(("held", gpu), lambda moved=moved: (copy_s + compute_s) * moved)  # type: ignore[misc]
            yield held_s / self._gpu_slots, 0.0
        for moves in self._moves():
            for base_s in self._bases_s(moves):
                yield self._stalls(moves, base_s), 0.0

    def _moves(self) -> Iterator[Moves]:
        """Over each link; from disk to RAM for the CPU; from disk, through RAM, to wherever it is computed."""
        cost, link, host, gpu_slots = self.cost, self.cost.decode.link, self._host_slots, self._gpu_slots
        for gpu in range(cost.n_gpus):
            moved = link == gpu
            yield Moves(f"link {gpu}", moved, self._copy_s, gpu_slots - moved, gpu_slots)
        direct = cost.streamed & (link == NO_LINK)
        read_s = np.broadcast_to(self._read_s, self.open.shape)
        yield Moves("direct", direct, read_s, host - direct, host)
        rings = sum(self.cell.high[1 + gpu] > 0 for gpu in range(cost.n_gpus))
        relays = self.cell.high[self.rows.room.at.relays] > 0
        slots = host + rings * gpu_slots if relays else host
        holds = (cost.streamed | (link != NO_LINK)) if relays else cost.streamed
        yield Moves("disk", cost.streamed, read_s, slots - holds, slots)

    def _bases_s(self, moves: Moves) -> list[float]:
        """The longest move in this cell, and shorter ones that are the same in all."""
        there = self.open & moves.moved
        longest_s = float(moves.move_s[there].max(initial=0.0))
        key = ("bases", self.number, moves.name)
        if key not in self.rows._kept:
            every_s = moves.move_s[self.rows.room.allowed & moves.moved]
            self.rows._kept[key] = np.quantile(every_s, SHARES, method="nearest") if every_s.size else np.zeros(2)
        return [longest_s, *self.rows._kept[key].tolist()] if longest_s else [0.0] * (1 + len(SHARES))

    def _stalls(self, moves: Moves, base_s: float) -> Floats:
        """Moving all, and for every stage what remains of its computation when all slots are full.

        No slot is let go of while a stage computes. Of a move only the first ``base`` seconds are counted: then moving
        and idling exclude each other whatever ``base`` is. After the head no slot is let go of until the first stage
        of the next token has been computed, which begins ``token_s`` later.
        """

        def make() -> Floats:
            idle_s = np.maximum(self._compute_s - base_s * moves.free, 0)
            head = self.rows.types.of_stage[-1]
            later_s = self._compute_s[head] + self.cost.token_s - base_s * moves.slots
            idle_s[head] = np.maximum(idle_s[head], later_s)
            return np.minimum(moves.move_s, base_s) * moves.moved + idle_s

        if not base_s:
            return self._kept("nothing", lambda: np.zeros(1))
        return self._kept((moves.name, base_s, moves.slots, int(moves.free.sum())), make)

    def cold(self) -> Iterator[tuple[Floats, float]]:
        """A first pass, counted from the end of the startup on; see ``time_rows``."""
        cost, kind, first = self.cost, self.cost.prefill, self.rows.types.first
        done_s = cost.startup_s * cost.startup_rate
        link = np.where(kind.link == NO_LINK, cost.load_link, kind.link)
        copy_s = np.where(kind.link == NO_LINK, cost.load_s, kind.copy_s)[first]
        compute_s = kind.compute_s[first]
        begin_s = max(0.0, cost.lead_s + float(cost.read_s[0]) - done_s)
        yield self._kept("first", lambda: cost.first_s[first]), cost.token_s + begin_s
        last = np.arange(len(first)) == self.rows.types.of_stage[-1]
        head_s = self._kept("head", lambda: (copy_s * ~cost.in_ram + compute_s) * last[:, None])
        yield head_s, cost.token_s + cost.lead_s + float(cost.read_s.sum()) - done_s
        filled_s, constant = self._filled(~cost.in_ram, self._host_slots)
        yield filled_s + head_s, cost.token_s + constant
        for gpu in range(cost.n_gpus):
            yield self._kept(("load", gpu), lambda gpu=gpu: copy_s * (link == gpu)), cost.token_s  # type: ignore[misc]

    def warm(self) -> Iterator[tuple[Floats, float]]:
        """A later request, whose first stages fill the rings already."""
        cost = self.cost
        yield self._kept("prefill", lambda: cost.prefill.compute_s[self.rows.types.first]), cost.token_s
        filled_s, constant = self._filled(cost.streamed, self._host_slots + cost.n_gpus * self._gpu_slots)
        yield filled_s, cost.token_s + constant

    def _filled(self, through: Bools, slots: int) -> tuple[Floats, float]:
        """What is left to read when a pass begins: all that goes through the ring but what fills it.

        The head, the last stage, is among that only if no more go through than there are slots. Whether so is left open
        by a line: of the time it may save, the share of stages that do not go through.
        """
        last = np.arange(len(self.open)) == self.rows.types.of_stage[-1]
        there = self.open[:, through].any(axis=1)
        read_s = self._read_s[:, 0]
        longest_s = float(read_s[there & ~last].max(initial=0.0))
        saved_s = max(0.0, float(read_s[there & last].max(initial=0.0)) - longest_s)
        n = int(self.rows.types.size.sum())
        each_s = saved_s / (n - slots) if n > slots else 0.0
        constant = -slots * longest_s - (each_s * n if n > slots else saved_s)
        return np.broadcast_to((self._read_s + each_s) * through, self.open.shape).ravel(), constant

    def _kept(self, key: object, make: Callable[[], Floats]) -> Floats:
        return self.rows.kept((self.number, key), make)

    @property
    def _host_slots(self) -> int:
        """At most."""
        return HOST_SLOTS[self.cell.high[self.rows.room.at.host_slots]]

    @property
    def _gpu_slots(self) -> int:
        return GPU_SLOTS[self.cell.high[self.rows.room.at.gpu_slots]]

    @cached_property
    def _compute_s(self) -> Floats:
        return self.cost.decode.compute_s[self.rows.types.first]

    @cached_property
    def _copy_s(self) -> Floats:
        return self.cost.decode.copy_s[self.rows.types.first]

    @cached_property
    def _read_s(self) -> Floats:
        """``(T, 1)``."""
        return self.cost.read_s[self.rows.types.first][:, None]
