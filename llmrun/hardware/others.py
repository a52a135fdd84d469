"""Whether others compute on this machine at the same time, which makes what is measured then too slow."""

from __future__ import annotations

import psutil

INTERVAL_S = 0.2
BUSY = "the machine is busy"
BUSY_SHARE = 0.25
"""More of the processor in others' hands shows in a measurement; what a desktop does by itself is less."""


def others_share(interval_s: float = INTERVAL_S) -> float:
    """The share of all processors' time that is spent computing, 0 to 1, while this process waits for ``interval_s``.

    Threads that wait for a disk do not compute. They count in the load average, which therefore is not used.
    """
    return float(psutil.cpu_percent(interval_s)) / 100


def busy_note(share: float) -> tuple[str, ...]:
    """A line where others take more than ``BUSY_SHARE``."""
    if share <= BUSY_SHARE:
        return ()
    return (f"{BUSY} (others take {share:.0%} of the processor); `llmrun inspect --refresh` when it is not",)
