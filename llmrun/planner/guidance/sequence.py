"""From how many stages make each choice to which of them do.

What is streamed hides behind what is not, so alike choices come at even distances; and handing the hidden states from
one device to another costs, so it may pay to go round the devices only once or twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmrun.planner.stage_types import StageTypes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LITTLE = 0.02  # of a share: less is only taken where there is nothing else


def diffuse(likely: Floats, owed: Floats | None = None) -> Ints:
    """``(A, n, C)`` to codes ``(A, n)``: shares become whole choices, the error going on to the next stage.

    So a choice that has a third of the share comes at every third stage; ``owed``, ``(A, C)``, is what it begins with.
    """
    shares = likely / likely.sum(axis=2, keepdims=True)
    owed = np.zeros((len(shares), shares.shape[2])) if owed is None else owed.copy()
    open_ = shares >= np.minimum(LITTLE, shares.max(axis=2, keepdims=True))
    codes = np.empty(shares.shape[:2], dtype=np.int64)
    rows = np.arange(len(shares))
    for stage in range(shares.shape[1]):
        owed += shares[:, stage]
        codes[:, stage] = np.argmax(np.where(open_[:, stage], owed, -np.inf), axis=1)
        owed[rows, codes[:, stage]] -= 1
    return codes


def go_round(types: StageTypes, codes: Ints, device_of: Ints, order: Sequence[int], turns: int) -> Ints:
    """The same choices of each type, ``(n,)``, in another order: so many turns, in each one device after the other.

    0 turns: every choice at even distances, whatever its device.
    """
    arranged = codes.copy()
    for kind in np.flatnonzero(types.size > 1):
        inside = types.of_stage == kind
        counts = np.bincount(codes[inside], minlength=len(device_of))
        groups = [np.flatnonzero(device_of == device) for device in order] if turns else [np.arange(len(device_of))]
        edges = np.floor(np.outer(np.arange(max(turns, 1) + 1), counts) / max(turns, 1) + 0.5).astype(np.int64)
        parts = [spread_out(np.repeat(group, part[group])) for part in np.diff(edges, axis=0) for group in groups]
        arranged[inside] = np.concatenate(parts)
    return arranged


def spread_out(codes: Ints, phases: Floats | None = None) -> Ints:
    """The same codes, each at even distances (Bresenham's line for each of them).

    Args:
        codes: any.
        phases: for each choice ``(C,)`` where in its distance it begins, 0 to 1; half-way if not given.
    """
    if not len(codes):
        return codes
    found, at, counts = np.unique(codes, return_inverse=True, return_counts=True)
    rank = np.empty(len(codes))
    for which in range(len(found)):
        rank[at == which] = np.arange(counts[which])
    begin = 0.5 if phases is None else phases[codes]
    return codes[np.argsort((rank + begin) / counts[at], kind="stable")]
