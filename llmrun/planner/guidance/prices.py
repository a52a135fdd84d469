"""What seconds of each resource and bytes of each device are worth: the guide of the searches.

Without the order of the stages, and with rings of a given size, a plan is an assignment under a few shared limits: the
busiest resource of a pass is what the pass takes, and each device holds so many bytes. The linear relaxation of that is
solved in milliseconds; its dual values are the prices (Dantzig 1963) at which every stage chooses for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.guidance.floor import Columns, busy_table, cold_read_seconds, weights
from llmrun.planner.guidance.frames import Frame, device_bytes
from llmrun.planner.problem import Objective, Problem
from llmrun.planner.stage_types import StageTypes, stage_types
from llmrun.units import GIB

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

OPEN_TYPES = 20  # at most, in a program that is solved in whole stages
WHOLE_GAP = 5e-3
NO_LIMIT = 1e9  # where the program's numbers are about 1; it wants them finite


@dataclass(frozen=True)
class Prices:
    """Of one frame; the tables are ``(n, C)``.

    Attributes:
        frame: which rings there are.
        bound_s: what no plan in this frame is below.
        worth: seconds that each choice saves its stage against the worst, resources weighted by how scarce they are.
        reduced_s: what each choice costs its stage with its bytes paid for, above the cheapest.
        shares: how much of a stage, or of all that are alike, makes each choice.
    """

    frame: Frame
    bound_s: float
    worth: Floats
    reduced_s: Floats
    shares: Floats


@dataclass(frozen=True)
class Market:
    """The relaxation of a problem in any frame: ``T`` types of stages, ``C`` choices, ``R`` resources."""

    problem: Problem

    def prices(self, frame: Frame) -> Prices | None:
        """The prices in a frame; none where it has no plan."""
        open_ = frame.usable(self.problem)[self._types.first]
        result = self._solve(open_, self._limits(frame))
        if result.status != 0:
            return None
        scaled = np.maximum(-result.ineqlin.marginals, 0.0) * self._objective_s / self._scale  # seconds a unit
        seconds = self._table[:, :, self._is_time] @ scaled[self._is_time]
        total = np.where(open_, self._table @ scaled, np.inf)
        chosen = result.x[:-2].reshape(open_.shape) / self._types.size[:, None]
        at = self._types.of_stage
        return Prices(
            frame=frame,
            bound_s=float(result.fun) * self._objective_s,
            worth=(seconds.max() - seconds)[at],
            reduced_s=(total - total.min(axis=1, keepdims=True))[at],
            shares=np.maximum(chosen, 0.0)[at],
        )

    def unpriced(self, frame: Frame) -> Prices:
        """Where no frame has a plan: every second counts the same, bytes cost nothing."""
        seconds = self._table[:, :, self._is_time].sum(axis=2)[self._types.of_stage]
        open_ = self.problem.allowed
        reduced_s = np.where(open_, seconds - seconds.min(axis=1, keepdims=True), np.inf)
        shares = open_ / open_.sum(axis=1, keepdims=True)
        return Prices(frame, 0.0, seconds.max() - seconds, reduced_s, shares)

    def _solve(self, open_: NDArray[np.bool_], limits: Floats) -> Any:  # noqa: ANN401 - SciPy has no types
        """HiGHS: variables are counts ``(T x C)``, then the time of a prefill and of a token."""
        from scipy.optimize import linprog  # takes a third of a second

        lower, upper = self._bounds(open_)
        return linprog(
            self._costs,
            A_ub=self._rows,
            b_ub=np.minimum(limits / self._scale, NO_LIMIT),
            A_eq=self._every_stage,
            b_eq=self._types.size,
            bounds=np.column_stack([lower, upper]),
            method="highs",
        )

    def whole(self, prices: Prices) -> Ints | None:
        """Codes ``(n,)``, the plan in whole stages: what HiGHS finds at the root. None where it finds none.

        Of many types only those whose choice is close are decided again; the others stay as the relaxed plan has them.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp

        lower, upper = self._bounds(prices.frame.usable(self.problem)[self._types.first])
        decided = np.repeat(self._decided(prices), len(self.problem.choices))
        counts = np.rint(prices.shares[self._types.first] * self._types.size[:, None]).ravel()
        lower[:-2], upper[:-2] = np.where(decided, counts, lower[:-2]), np.where(decided, counts, upper[:-2])
        limits = np.minimum(self._limits(prices.frame) / self._scale, NO_LIMIT)
        result = milp(
            self._costs,
            integrality=np.append(np.ones(len(upper) - 2), [0, 0]),
            bounds=Bounds(lower, upper),
            constraints=[
                LinearConstraint(self._rows, -np.inf, limits),
                LinearConstraint(self._every_stage, self._types.size, self._types.size),
            ],
            options={"node_limit": 1, "mip_rel_gap": WHOLE_GAP},
        )
        if result.x is None:
            return None
        codes = np.empty(len(self._types.of_stage), dtype=np.int64)
        for kind, row in enumerate(np.rint(result.x[:-2]).astype(np.int64).reshape(len(self._types), -1)):
            codes[self._types.of_stage == kind] = np.repeat(np.arange(len(row)), row)
        return codes

    def _decided(self, prices: Prices) -> NDArray[np.bool_]:
        """``(T,)``: types of one choice, by which they save most."""
        shares, reduced_s = prices.shares[self._types.first], prices.reduced_s[self._types.first]
        whole = shares.max(axis=1) > 1 - 1e-6
        second_s = np.sort(reduced_s, axis=1)[:, 1] if reduced_s.shape[1] > 1 else np.zeros(len(whole))
        close = np.lexsort((second_s, whole))[:OPEN_TYPES]
        decided: NDArray[np.bool_] = whole & ~np.isin(np.arange(len(whole)), close)
        return decided

    def _bounds(self, open_: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        upper = np.append(np.where(open_, self._types.size[:, None], 0.0).ravel(), [np.inf, np.inf])
        lower = np.zeros(len(upper))
        lower[-2] = self._cold_s / self._scale[0]
        return lower, upper

    def _limits(self, frame: Frame) -> Floats:
        """``(R,)``: room on the devices; what a pass takes anyway, as a limit below 0; none for what does not count."""
        costs = self.problem.costs
        token_s = float(np.mean([cost.token_s for cost in costs]))
        time_s = np.where(self._columns.serial, -token_s, 0.0)
        counts = self._columns.counts(frame.slots.host == 1, frame.slots.gpu == 1)
        return np.concatenate([np.where(counts, time_s, np.inf), frame.room_bytes(self.problem)])

    @cached_property
    def _cold_s(self) -> float:
        """A first pass reads everything."""
        if self.problem.objective is Objective.THROUGHPUT:
            return 0.0
        return float(np.mean([cold_read_seconds(cost) for cost in self.problem.costs]))

    @cached_property
    def _columns(self) -> Columns:
        return Columns(self.problem.costs[0].n_gpus)

    @cached_property
    def _types(self) -> StageTypes:
        return stage_types(self.problem)

    @cached_property
    def _table(self) -> Floats:
        """``(T, C, R)``: what each choice asks of each resource."""
        table = np.concatenate([busy_table(self.problem), device_bytes(self.problem)], axis=2)
        return table[self._types.first]

    @cached_property
    def _is_time(self) -> NDArray[np.bool_]:
        return np.arange(self._table.shape[2]) < len(self._columns)

    @cached_property
    def _scale(self) -> Floats:
        """``(R,)``: so that the program's numbers are about 1."""
        seconds = np.max(self._table[:, :, self._is_time], axis=1).sum(axis=0).max()
        scale: Floats = np.where(self._is_time, max(float(seconds), 1e-9), float(GIB))
        return scale

    @cached_property
    def _objective_s(self) -> float:
        """Seconds that 1 of the program's objective stands for."""
        return float(max(weights(self.problem.objective, self.problem.workload.new_tokens)) * self._scale[0])

    @cached_property
    def _costs(self) -> Floats:
        costs = np.zeros(self._table[:, :, 0].size + 2)
        costs[-2:] = weights(self.problem.objective, self.problem.workload.new_tokens)
        scaled: Floats = costs * self._scale[0] / self._objective_s
        return scaled

    @cached_property
    def _rows(self) -> Floats:
        """``(R, T x C + 2)``: what is asked, less the time of the pass."""
        rows = np.zeros((len(self._is_time), len(self._costs)))
        rows[:, :-2] = (self._table / self._scale).reshape(-1, len(self._is_time)).T
        prefill = np.arange(len(rows)) == Columns.PREFILL
        rows[:, -2] = -1.0 * prefill
        rows[:, -1] = -1.0 * (self._is_time & ~prefill)
        return rows

    @cached_property
    def _every_stage(self) -> Any:  # noqa: ANN401
        from scipy.sparse import csr_array

        n_types, n_choices = self._table.shape[:2]
        rows, columns = np.repeat(np.arange(n_types), n_choices), np.arange(n_types * n_choices)
        return csr_array((np.ones(len(rows)), (rows, columns)), shape=(n_types, len(self._costs)))
