"""Stages that are alike in every respect but their place, so that counting them is enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.problem import Problem

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class StageTypes:
    """``T`` types of the ``n`` stages, in the order of their first stages.

    Attributes:
        of_stage: ``(n,)``, the type of each stage.
        first: ``(T,)``, the first stage of each type, which stands for all of it.
        size: ``(T,)``, how many stages it has.
    """

    of_stage: Ints
    first: Ints
    size: Ints

    def __len__(self) -> int:
        return len(self.first)


def stage_types(problem: Problem) -> StageTypes:
    """Stages of one type have the same bytes, the same choices and, in every scenario, the same costs.

    The last layer is of its own type: what is small lives where it is computed.
    """
    last_layer = np.zeros((len(problem.allowed), 1))
    last_layer[-2:-1] = 1
    fit = problem.fit
    columns = [last_layer, problem.allowed, fit.weight_bytes[:, None], fit.home_bytes, fit.kv_bytes[:, None]]
    columns.append(fit.substitute_bytes)
    for cost in problem.costs:
        columns += [cost.read_s[:, None], cost.load_s]
        columns += [table for kind in (cost.prefill, cost.decode) for table in (kind.compute_s, kind.copy_s)]
    rows = np.concatenate([column.astype(np.float64) for column in columns], axis=1)
    _, first, of_stage = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # unique sorts by the values
    rank = np.argsort(order)[of_stage.ravel()]
    return StageTypes(rank, first[order], np.bincount(rank))
