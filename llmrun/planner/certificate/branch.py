"""Branch and bound over cells, the most promising first: no plan is below the least that is left.

The linear program of a cell has dual values, prices of its rows. They bound any other cell too, weakly (every choice
made by its price, Everett 1963, "Generalized Lagrange Multiplier Method"), and that costs a product of matrices. So a
cell is solved only where no price that is known lifts it above the others. What is summed here from prices holds
whatever HiGHS rounds.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.certificate.cell_rows import MEMORY, CellRows, Rows
from llmrun.planner.certificate.cells import Cell

Floats = NDArray[np.float64]

POOL = 16  # prices that are kept
WEIGH_S, SOLVE_S = 3e-4, 2.5e-3
WEIGH_ENTRY_S, SOLVE_ENTRY_S = 1.5e-8, 5e-7
"""What weighing and solving a cell take, and each entry of its rows (measured): work is counted, not time."""

INFEASIBLE = 2  # HiGHS through SciPy
ROUNDING = 1e-9


@dataclass
class Branch:
    """The state of one run."""

    rows: CellRows
    spent_s: float = 0.0
    _prices: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    _order: Any = field(default_factory=count)  # among equals, first come, first served

    def least(self, budget_s: float) -> float:
        """A lower bound, the better the more may be spent: about so many seconds."""
        heap: list[tuple[float, int, Cell, bool]] = []
        self._push(heap, 0.0, self.rows.room.all, solved=False)
        while heap and self.spent_s < budget_s:
            value, _, cell, solved = heapq.heappop(heap)
            if not solved:
                again = max(value, self._weigh(cell))
                solved = again <= value
                self._push(heap, max(again, self._solve(cell)) if solved else again, cell, solved=solved)
            elif cell.low == cell.high:
                return value * (1 - ROUNDING)
            else:
                for part, least in self._split(cell):
                    self._push(heap, max(value, least), part, solved=False)
        return heap[0][0] * (1 - ROUNDING) if heap else np.inf

    def _push(self, heap: list[tuple[float, int, Cell, bool]], value: float, cell: Cell, *, solved: bool) -> None:
        if np.isfinite(value):
            heapq.heappush(heap, (value, next(self._order), cell, solved))

    def _split(self, cell: Cell) -> list[tuple[Cell, float]]:
        """In the dimension in which it lifts the bound most."""
        weighed = [[(part, self._weigh(part)) for part in parts] for parts in cell.splits()]
        return max(weighed, key=lambda parts: sorted(least for _, least in parts))

    def _weigh(self, cell: Cell) -> float:
        """By the prices that are known."""
        rows = self.rows.rows(cell)
        self.spent_s += WEIGH_S + WEIGH_ENTRY_S * rows.table.size
        if not rows.open.any(axis=1).all() or (rows.constant[rows.of == MEMORY] > 0).any():
            return np.inf
        return float(self._by_prices(rows, self._prices).max(initial=0.0))

    def _by_prices(self, rows: Rows, prices: Floats) -> Floats:
        """``(P,)`` from ``(P, R)``."""
        if not len(prices):
            return np.zeros(0)
        each = (prices @ rows.table).reshape(-1, *rows.open.shape)
        cheapest = np.where(rows.open, each, np.inf).min(axis=2)
        found: Floats = cheapest @ self.rows.types.size + prices @ rows.constant
        return found

    def _solve(self, cell: Cell) -> float:
        """By its own prices, which are kept."""
        from scipy.optimize import linprog  # takes a third of a second

        rows = self.rows.rows(cell)
        self.spent_s += SOLVE_S + SOLVE_ENTRY_S * rows.table.size
        if not rows.open.any(axis=1).all():
            return np.inf
        times = np.unique(rows.of[rows.of != MEMORY])
        minus = -(rows.of[:, None] == times).astype(np.float64)
        upper = np.append(np.where(rows.open, self.rows.types.size[:, None], 0.0).ravel(), np.full(len(times), np.inf))
        result = linprog(
            np.append(np.zeros(rows.table.shape[1]), np.ones(len(times))),
            A_ub=np.hstack([rows.table, minus]),
            b_ub=-rows.constant,
            A_eq=self._every_stage(len(times)),
            b_eq=self.rows.types.size,
            bounds=np.column_stack([np.zeros(len(upper)), upper]),
            method="highs",
        )
        if result.status:
            return np.inf if result.status == INFEASIBLE else 0.0
        prices = np.maximum(-result.ineqlin.marginals, 0.0)
        for number in times:  # what is paid for a second of a time is no more than that is worth
            prices[rows.of == number] /= max(1.0, float(prices[rows.of == number].sum()))
        self._prices = np.vstack([prices, *self._prices[: POOL - 1]])
        return float(self._by_prices(rows, prices[None])[0])

    def _every_stage(self, n_times: int) -> Any:  # noqa: ANN401 - SciPy has no types
        from scipy.sparse import csr_array

        n_types, n_choices = self.rows.room.shape
        at, counts = np.repeat(np.arange(n_types), n_choices), np.arange(n_types * n_choices)
        return csr_array((np.ones(len(at)), (at, counts)), shape=(n_types, len(counts) + n_times))
