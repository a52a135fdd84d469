"""What no order of the stages can go below in time: rows on top of the relaxation, each with its proof.

All are circuits or paths of the simulated pipeline (Baccelli, Cohen, Olsder & Quadrat 1992, "Synchronization and
Linearity": the period of such a system is the largest mean weight of a circuit), summed so that the order drops out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.certificate.linear import Terms, times
from llmrun.planner.certificate.relaxation import Relaxation, Ring
from llmrun.planner.certificate.stage_classes import StageClasses
from llmrun.planner.problem import Problem
from llmrun.planner.simulation.cost import NO_LINK, Cost
from llmrun.units import GIB

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Floor:
    """A variable that is at least some seconds times a factor."""

    relaxation: Relaxation
    variable: Ints
    factor: float

    def at_least(self, seconds: float, *terms: Terms) -> None:
        """It is at least so many seconds and those of the terms."""
        scaled = [term * -self.factor for term in terms]
        self.relaxation.counts.program.at_least(self.factor * seconds, times(self.variable, 1.0), *scaled)


@dataclass(frozen=True)
class TimeRows:
    """The rows of one scenario."""

    problem: Problem
    classes: StageClasses
    relaxation: Relaxation
    cost: Cost

    def period(self, floor: Floor) -> None:
        """A decoded token, tokens following one another."""
        cost, kind = self.cost, self.cost.decode
        compute_s, copy_s = self._of(kind.compute_s), self._of(kind.copy_s)
        read_s = self._of(cost.read_s[:, None])
        # each resource does one thing at a time
        floor.at_least(cost.token_s, self._sum(self._all, compute_s))
        floor.at_least(0, self._sum(cost.streamed, read_s))
        for gpu in range(cost.n_gpus):
            floor.at_least(0, self._sum(kind.link == gpu, copy_s))
        self._rings(floor, compute_s, copy_s, read_s)

    def _rings(self, floor: Floor, compute_s: Floats, copy_s: Floats, read_s: Floats) -> None:
        """While a stage computes, no slot is let go of, so what fills a ring can do no more than fill it."""
        cost, kind, host, gpu_ring = self.cost, self.cost.decode, self.relaxation.host, self.relaxation.gpu
        for gpu in range(cost.n_gpus):
            moved = kind.link == gpu
            self._stalls(floor, compute_s, copy_s, moved, gpu_ring)
        self._stalls(floor, compute_s, read_s, cost.streamed & (kind.link == NO_LINK), host)
        # a slot of the ring in RAM that is the only one is held until the copy, or the computation, has ended
        held_s = read_s + np.where(kind.link == NO_LINK, compute_s, copy_s)
        slack_s = self._most(held_s - read_s, cost.streamed)
        self._unless(floor, host.beyond[0], slack_s, self._sum(cost.streamed, held_s))

    def _stalls(self, floor: Floor, compute_s: Floats, move_s: Floats, moved: Bools, ring: Ring) -> None:
        """Moving all, and for every stage what remains of its computation when all slots are full.

        Of a move only the first ``base`` seconds are counted: then moving and idling exclude each other whatever
        ``base`` is.
        """
        moves_s = move_s[:, np.flatnonzero(moved)[0]]
        for base_s in np.unique(moves_s) if self.classes.alike.all() else [np.median(moves_s)]:
            counted_s = self._sum(moved, np.minimum(move_s, base_s))
            idle_s = [self._idle(compute_s, moved, slots, float(base_s)) for slots in ring.options]
            for level in {*range(min(3, len(idle_s))), len(idle_s) - 1}:
                terms = [counted_s, self._sum(self._all, idle_s[level])]
                if level == len(idle_s) - 1:
                    floor.at_least(0, *terms)
                else:
                    self._unless(floor, ring.beyond[level], self._most(idle_s[level] - idle_s[-1], self._all), *terms)

    def _idle(self, compute_s: Floats, moved: Bools, slots: int, base_s: float) -> Floats:
        """``(n, C)``: for how long at least a ring of so many slots is full while a stage computes.

        No slot is let go of meanwhile, and one is held by the stage itself if it came through the ring. After the head
        none is until the first stage of the next token has been computed, which begins ``token_s`` later.
        """
        idle_s = np.maximum(compute_s - base_s * (slots - moved), 0)
        idle_s[-1] = np.maximum(idle_s[-1], compute_s[-1] + self.cost.token_s - base_s * slots)
        return idle_s

    def _unless(self, floor: Floor, otherwise: Ints, slack_s: float, *terms: Terms) -> None:
        """A row that holds where ``otherwise`` is 0, and with so many seconds less where it is 1."""
        if slack_s:
            floor.at_least(0, *terms, times(otherwise, -slack_s))

    def cold(self, floor: Floor) -> None:
        """A first pass, counted from the end of the startup on."""
        cost, kind = self.cost, self.cost.prefill
        assert not cost.idle_s, "planned for a request that comes at once"
        compute_s = self._of(kind.compute_s)
        done_s = cost.startup_s * cost.startup_rate
        link = np.where(kind.link == NO_LINK, cost.load_link, kind.link)
        copy_s = self._of(np.where(kind.link == NO_LINK, cost.load_s, kind.copy_s))
        # everything is computed, once the first stage is there
        first_s = max(0.0, cost.lead_s + float(cost.read_s[0]) - done_s)
        floor.at_least(cost.token_s + first_s, self._sum(self._all, cost.first_s))
        # the head is computed, once everything is there; unless it lives in RAM it comes last and is copied then
        head = times(self.relaxation.counts.number[-1], (copy_s * ~cost.in_ram + compute_s)[-1])
        floor.at_least(cost.token_s + cost.lead_s + float(cost.read_s.sum()) - done_s, head)
        self._filled(floor, ~cost.in_ram, cost.token_s, head)
        for gpu in range(cost.n_gpus):
            floor.at_least(cost.token_s, self._sum(link == gpu, copy_s))

    def warm(self, floor: Floor) -> None:
        """A later request, whose first stages fill the rings already."""
        cost = self.cost
        floor.at_least(cost.token_s, self._sum(self._all, self._of(cost.prefill.compute_s)))
        self._filled(floor, cost.streamed, cost.token_s, further=cost.n_gpus * max(self.relaxation.gpu.options))

    def _filled(self, floor: Floor, through: Bools, seconds: float, *after: Terms, further: int = 0) -> None:
        """When a pass begins, no more of what goes through the ring in RAM has been read than fills it.

        That is as many stages, the first ones, as there are slots; the head is one of them only if there are no more.
        ``further``: slots of other rings that what goes through this one may have reached by then.
        """
        host = self.relaxation.host
        read_s = self._of(self.cost.read_s[:, None])
        head_s, largest_s = float(self.cost.read_s[-1]), float(self.cost.read_s[:-1].max(initial=0.0))
        at_once = self._fits_at_once(through, further)
        for level, slots in enumerate(host.options):
            terms = [*after, self._sum(through, read_s), times(at_once, -max(0.0, head_s - largest_s))]
            terms.append(self.relaxation.host_layer_gib * (-(slots + further) * self._read_s_per_gib))
            if level < len(host.beyond):
                terms.append(times(host.beyond[level], -(host.options[-1] - slots) * largest_s))
            floor.at_least(seconds, *terms)

    def _fits_at_once(self, through: Bools, further: int) -> Ints:
        """A variable that is 1 where no more stages go through the ring in RAM than there are slots, else 0."""
        counts, host = self.relaxation.counts, self.relaxation.host
        at_once = counts.program.variable(1, integer=True)
        n = len(self.cost.read_s)
        stages = counts.sum(through, np.ones(n))
        most = host.options[-1] + further
        counts.program.at_least(2.0 + further, stages, -host.more, times(at_once, most + 1.0))
        counts.program.at_most(1.0 + further + n, stages, -host.more, times(at_once, float(n)))
        return at_once

    @property
    def _all(self) -> Bools:
        return np.ones(len(self.problem.choices), dtype=bool)

    @property
    def _read_s_per_gib(self) -> float:
        """Of the slowest: reading is as long as a buffer is large, but for rounding."""
        nbytes = self.problem.fit.weight_bytes
        return float((self.cost.read_s[nbytes > 0] / nbytes[nbytes > 0]).max(initial=0.0)) * GIB

    def _of(self, table: Floats) -> Floats:
        """``(n, C)``."""
        return np.broadcast_to(table, (len(table), len(self.problem.choices)))

    def _sum(self, choices: Bools, values: Floats) -> Terms:
        return self.relaxation.counts.sum(choices, values)

    def _most(self, values: Floats, choices: Bools) -> float:
        """The largest sum that any choices among these can have."""
        return float(np.maximum(values[:, choices], 0).max(axis=1).sum())
