"""The pipeline simulated, for many candidates at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.choices import Candidates
from llmrun.planner.cost import Cost

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Times:
    """Seconds of each candidate, ``(A,)``.

    Attributes:
        ttft_s: of a first request made as soon as the engine is ready: the weights are still coming in.
        warm_ttft_s: of a later request: what is resident is there, the rings are full.
        tpot_s: the steady-state period of a decoded token.
    """

    ttft_s: Floats
    warm_ttft_s: Floats
    tpot_s: Floats


def simulate(cost: Cost, candidates: Candidates) -> Times:
    """The times of each candidate."""
    raise NotImplementedError
