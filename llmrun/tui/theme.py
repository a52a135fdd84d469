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
NARROW = 48
"""Below so many columns labels have none of their own."""

BAR_DONE, BAR_TODO = "━", "─"
ASCII_DONE, ASCII_TODO = "#", "-"
BEYOND_ASCII = "━─┃▲↓▁▂▃▄▅▆▇█"


def has_unicode(stream: TextIO) -> bool:
    """Whether the stream's encoding has the signs of bars and sparklines; what says nothing of its encoding has."""
    try:
        BEYOND_ASCII.encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def can_draw(stream: TextIO) -> bool:
    """Whether lines can be redrawn on the stream: a terminal that is not ``dumb``."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
