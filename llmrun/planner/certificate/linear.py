"""A mixed-integer linear program that is put together row by row and solved by HiGHS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RELATIVE_GAP = 5e-4
NODES = 100  # work, not time: the same program then has the same answer on every machine
INFEASIBLE = 2  # HiGHS through SciPy
TOLERANCE = 1e-5  # of HiGHS, on what is of the order of 1


@dataclass(frozen=True)
class Solution:
    """``bound``: no solution is lower (infinite where there is none). ``values``: the best found, if one was."""

    bound: float
    values: Floats | None

    def value(self, terms: Terms) -> float:
        """Of a sum of terms."""
        assert self.values is not None, "there is no solution"
        return float(self.values[terms.variables] @ terms.coefficients)


@dataclass(frozen=True)
class Terms:
    """Part of a linear expression: variables and their coefficients."""

    variables: Ints
    coefficients: Floats

    def __mul__(self, factor: float) -> Terms:
        return Terms(self.variables, factor * self.coefficients)

    def __neg__(self) -> Terms:
        return self * -1.0


@dataclass
class Program:
    """Minimise a linear expression of non-negative variables under linear constraints."""

    _upper: list[float] = field(default_factory=list)
    _integer: list[bool] = field(default_factory=list)
    _rows: list[tuple[Sequence[Terms], float]] = field(default_factory=list)

    def variables(self, upper: Floats, *, integer: bool) -> Ints:
        """New variables between 0 and ``upper``."""
        first = len(self._upper)
        self._upper += upper.tolist()
        self._integer += [integer] * len(upper)
        return np.arange(first, len(self._upper))

    def variable(self, upper: float = math.inf, *, integer: bool = False) -> Ints:
        """One new variable, ``(1,)``."""
        return self.variables(np.array([upper]), integer=integer)

    def at_least(self, low: float, *terms: Terms) -> None:
        """The sum of the terms is at least ``low``."""
        self._rows.append((terms, low))

    def at_most(self, high: float, *terms: Terms) -> None:
        """The sum of the terms is at most ``high``."""
        self.at_least(-high, *(-term for term in terms))

    def equal(self, value: float, *terms: Terms) -> None:
        """The sum of the terms is ``value``."""
        self.at_least(value, *terms)
        self.at_most(value, *terms)

    def minimise(self, *objective: Terms) -> Solution:
        """Solve it; stopped early, HiGHS still has a bound that is proven."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # takes a third of a second

        low = np.array([low for _, low in self._rows])
        result = milp(
            self._matrix([objective]).toarray()[0],
            integrality=np.array(self._integer),
            bounds=Bounds(0, np.array(self._upper)),
            constraints=LinearConstraint(self._matrix([terms for terms, _ in self._rows]), low),
            options={"mip_rel_gap": RELATIVE_GAP, "node_limit": NODES, "presolve": False},
        )
        if result.status == INFEASIBLE:
            return Solution(math.inf, None)
        bound = result.mip_dual_bound if result.mip_dual_bound is not None else 0.0
        return Solution(max(0.0, bound * (1 - TOLERANCE)), result.x)

    def _matrix(self, rows: Sequence[Sequence[Terms]]) -> Any:  # noqa: ANN401 - SciPy has no types
        from scipy.sparse import csr_array

        terms = [term for row in rows for term in row]
        at = np.repeat(np.arange(len(rows)), [sum(len(term.variables) for term in row) for row in rows])
        values = np.concatenate([term.coefficients for term in terms])
        variables = np.concatenate([term.variables for term in terms])
        return csr_array((values, (at, variables)), shape=(len(rows), len(self._upper)))


def times(variables: Ints, coefficients: Floats | float) -> Terms:
    """Variables times coefficients, the same for all if it is one number."""
    return Terms(variables.ravel(), np.broadcast_to(coefficients, variables.shape).astype(np.float64).ravel())
