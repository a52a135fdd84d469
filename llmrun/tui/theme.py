"""The few styles of the terminal views, and whether a view may be drawn at all.

Rich leaves colours out by itself where ``NO_COLOR`` is set.
"""

from __future__ import annotations

import os
from typing import TextIO

DIM = "dim"
BAR = "cyan"
PROMPT = "bold cyan"

HEADING = "bold"
ON_GPU, IN_RAM, ON_DISK = "green", "cyan", "yellow"  # where weights live

LABEL = 12
"""Columns of the label before a figure of the dashboard."""

BAR_DONE, BAR_TODO = "━", "─"


def can_draw(stream: TextIO) -> bool:
    """Whether lines can be redrawn on the stream: a terminal that is not ``dumb``."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
