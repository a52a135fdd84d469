"""How long each resource works for each decoded token: none of them can be busier than all the time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.simulation.cost import Cost


def resources(gpus: Sequence[str]) -> tuple[str, ...]:
    """The names of the columns of ``busy_seconds``."""
    return ("disk", *(f"link {gpu}" for gpu in gpus), "cpu", *gpus)


def busy_seconds(cost: Cost, candidates: Candidates) -> NDArray[np.float64]:
    """``(A, R)``: seconds a token on the disk, each GPU's link, the CPU and each GPU."""
    decode = cost.decode
    disk = cost.read_s[:, None] * cost.streamed
    links = [decode.copy_s * (decode.link == gpu) for gpu in range(cost.n_gpus)]
    devices = [decode.compute_s * (decode.device == device) for device in range(cost.n_gpus + 1)]
    columns = [_sum(seconds, candidates) for seconds in (disk, *links, *devices)]
    return np.stack(columns, axis=1)


def _sum(seconds: NDArray[np.float64], candidates: Candidates) -> NDArray[np.float64]:
    """``(n, C)`` to ``(A,)``: over the stages, of what each candidate chooses there."""
    chosen: NDArray[np.float64] = np.take_along_axis(seconds, candidates.codes.T, axis=1)
    total: NDArray[np.float64] = chosen.sum(axis=0)
    return total
