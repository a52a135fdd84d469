"""A sweep as bars of text: tok/s for each value of the swept option, one group a case. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TextIO

from llmrun.units import rate_digits

EIGHTHS = " ▏▎▍▌▋▊▉"
FULL, PLAIN = "█", "#"


class Named(Protocol):
    """A case of a benchmark."""

    @property
    def name(self) -> str:
        """``tg128``."""


class SweptRow(Protocol):
    """What is drawn of a row of a benchmark."""

    @property
    def case(self) -> Named:
        """What was measured."""

    @property
    def cache_state(self) -> str:
        """``cold`` or ``warm``."""

    @property
    def sweep(self) -> str | None:
        """The value of the swept option."""

    @property
    def avg_ts(self) -> float:
        """Mean tokens a second."""

    @property
    def stddev_ts(self) -> float:
        """Their sample deviation."""


def has_blocks(stream: TextIO) -> bool:
    """Whether the stream's encoding has the letters that fine bars are made of."""
    try:
        (EIGHTHS + FULL + "±").encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sweep_text(rows: Sequence[SweptRow], width: int, blocks: bool = True) -> str:
    """The rows that have a sweep value, within ``width`` columns; a group's longest bar is its highest rate.

    Without a final newline, and empty without such rows; ``blocks`` false draws with ``#``.
    """
    return "\n\n".join("\n".join(_group(name, group, width, blocks)) for name, group in _groups(rows).items())


def _groups(rows: Sequence[SweptRow]) -> Mapping[str, list[SweptRow]]:
    found: dict[str, list[SweptRow]] = {}
    for row in rows:
        if row.sweep is not None:
            found.setdefault(f"{row.case.name}, {row.cache_state}, tok/s", []).append(row)
    return found


def _group(name: str, rows: Sequence[SweptRow], width: int, blocks: bool) -> Iterator[str]:
    labels = [row.sweep or "" for row in rows]
    sign = "±" if blocks else "+-"
    figures = [_figure(row, sign) for row in rows]
    label_width, figure_width = max(map(len, labels)), max(map(len, figures))
    cells = max(1, width - label_width - figure_width - 4)  # two gaps of two
    most_ts = max(row.avg_ts for row in rows)
    yield name[:width]
    for row, label, figure in zip(rows, labels, figures, strict=True):
        bar = _bar(row.avg_ts / most_ts * cells, blocks)
        yield f"{label:>{label_width}}  {bar:<{cells}}  {figure:>{figure_width}}"[:width]


def _figure(row: SweptRow, sign: str) -> str:
    digits = rate_digits(row.avg_ts)
    return f"{row.avg_ts:.{digits}f} {sign} {row.stddev_ts:.{digits}f}"


def _bar(cells: float, blocks: bool) -> str:
    """Never empty: a rate is not nothing."""
    if not blocks:
        return PLAIN * max(1, round(cells))
    eighths = max(1, round(cells * 8))
    return FULL * (eighths // 8) + EIGHTHS[eighths % 8].strip()
