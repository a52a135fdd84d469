"""How long something takes, in a given time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

from llmrun.hardware.speeds import Spread

SAMPLE_S = 0.001
"""Shorter samples are of the clock as much as of the work."""


def nothing() -> None:
    """What a device that works at once needs to synchronise."""


def once_s(work: Callable[[], object]) -> float:
    """Seconds of a single call."""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def samples_s(
    work: Callable[[], object], limit_s: float, *, at_least: int = 2, synchronize: Callable[[], object] = nothing
) -> list[float]:
    """Seconds of one call of ``work``, sampled for about ``limit_s`` after a call that is not counted.

    Fast work is called several times in a sample. At least ``at_least`` samples are taken, however long that takes; one
    where the first call alone took all the time.
    """
    deadline_s = time.perf_counter() + limit_s
    work()
    synchronize()
    if time.perf_counter() > deadline_s:
        at_least = 1
    repeat, found = 1, list[float]()
    while len(found) < at_least or time.perf_counter() < deadline_s:
        began_s = time.perf_counter()
        for _ in range(repeat):
            work()
        synchronize()
        took_s = time.perf_counter() - began_s
        if took_s < SAMPLE_S and repeat < 1024:
            repeat *= 2
        else:
            found.append(took_s / repeat)
    return found


def median_s(
    work: Callable[[], object], limit_s: float, *, at_least: int = 2, synchronize: Callable[[], object] = nothing
) -> float:
    """The median of such samples."""
    return median(samples_s(work, limit_s, at_least=at_least, synchronize=synchronize))


def spread(values: Sequence[float]) -> Spread:
    """p10, p50 and p90 of at least one value, interpolated between them."""
    ordered = sorted(values)

    def quantile(share: float) -> float:
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        # so written, equal neighbours give themselves to the last bit, and the quantiles stay in order
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    return Spread(quantile(0.1), quantile(0.5), quantile(0.9))
