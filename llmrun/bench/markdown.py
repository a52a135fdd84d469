"""A row as a line of a Markdown table, its columns of fixed widths: a row is written before the next is known. Pure.

A terminal that is too narrow for all columns has those of a case, below a line with what all cases have in common.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from llmrun.bench.row import Row
from llmrun.units import GIB, MIB, format_seconds, rate_digits

NONE = "-"
_WIDTHS = {  # as llama-bench has them; to the left where negative
    "model": -30,
    "size": 10,
    "params": 10,
    "threads": 7,
    "ram budget": 10,
    "cache": 5,
    "test": 20,
    "t/s": 17,
    "ceiling": 8,
    "predicted": 9,
    "ttft": 10,
}
ALL = tuple(_WIDTHS)
OF_A_CASE = ALL[ALL.index("test") :]
FEWEST = 2  # the test and its rate


def fitting(columns: int | None) -> tuple[str, ...]:
    """The names of the columns for a terminal of so many ``columns`` of text; ``None``: it is none, and has all."""
    if columns is None or _width(ALL) <= columns:
        return ALL
    n_fit = sum(_width(OF_A_CASE[:n]) <= columns for n in range(1, len(OF_A_CASE) + 1))
    return OF_A_CASE[: max(FEWEST, n_fit)]


def header(names: Sequence[str] = ALL) -> str:
    """The names of the columns and the line under them."""
    rules = ("-" * (abs(_WIDTHS[name]) - 1) + (":" if _WIDTHS[name] > 0 else "-") for name in names)
    return _line({name: name for name in names}) + "| " + " | ".join(rules) + " |\n"


def line(row: Row, encoding: str | None = None, names: Sequence[str] = ALL) -> str:
    """The row; ``+-`` where the stream's encoding has no ``±``. A sweep's value stands behind the test."""
    sign = "±" if _has(encoding, "±") else "+-"
    digits = rate_digits(row.avg_ts)
    cells = {
        "model": row.model_type,
        "size": _size(row.model_size),
        "params": _params(row.model_n_params),
        "threads": str(row.n_threads),
        "ram budget": _size(row.ram_budget_bytes),
        "cache": row.cache_state,
        "test": row.case.name + (f" @ {row.sweep}" if row.sweep else ""),
        "t/s": f"{row.avg_ts:.{digits}f} {sign} {row.stddev_ts:.{digits}f}",
        "ceiling": _rate(row.ceiling_ts),
        "predicted": _rate(row.predicted_ts),
        "ttft": NONE if row.ttft_ms is None else format_seconds(row.ttft_ms / 1000),
    }
    return _line({name: cells[name] for name in names})


def caption(row: Row, columns: int) -> str:
    """What the columns of a case leave out, in lines of at most ``columns``. A sweep's values stand with the tests."""
    model = f"{printable(row.model_type)}, {_size(row.model_size)}, {_params(row.model_n_params)} params"
    budget = "" if row.sweep else f", {_size(row.ram_budget_bytes)} RAM"
    return textwrap.fill(f"{model}; {row.n_threads} threads{budget}, {row.cache_state}", columns) + "\n"


def printable(text: str) -> str:
    """The text in one line, without what would move the terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _width(names: Sequence[str]) -> int:
    """Of a line: each cell has a bar and two blanks, and there is one more bar."""
    return sum(abs(_WIDTHS[name]) + 3 for name in names) + 1


def _line(cells: Mapping[str, str]) -> str:
    padded = [
        f"{_cell(cell):>{_WIDTHS[name]}}" if _WIDTHS[name] > 0 else f"{_cell(cell):<{-_WIDTHS[name]}}"
        for name, cell in cells.items()
    ]
    return "| " + " | ".join(padded) + " |\n"


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.2f} GiB" if n_bytes >= GIB else f"{n_bytes / MIB:.2f} MiB"


def _params(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"


def _rate(tokens_per_s: float | None) -> str:
    return NONE if tokens_per_s is None else f"{tokens_per_s:.{rate_digits(tokens_per_s)}f}"


def _has(encoding: str | None, text: str) -> bool:
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
