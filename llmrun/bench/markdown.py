"""A row as a line of a Markdown table, its columns of fixed widths: a row is written before the next is known. Pure."""

from __future__ import annotations

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


def header() -> str:
    """The names of the columns and the line under them."""
    rules = ("-" * (abs(width) - 1) + (":" if width > 0 else "-") for width in _WIDTHS.values())
    return _line(list(_WIDTHS)) + "| " + " | ".join(rules) + " |\n"


def line(row: Row, encoding: str | None = None) -> str:
    """The row; ``+-`` where the stream's encoding has no ``±``. A sweep's value stands behind the test."""
    sign = "±" if _has(encoding, "±") else "+-"
    digits = rate_digits(row.avg_ts)
    return _line(
        [
            row.model_type,
            _size(row.model_size),
            _params(row.model_n_params),
            str(row.n_threads),
            _size(row.ram_budget_bytes),
            row.cache_state,
            row.case.name + (f" @ {row.sweep}" if row.sweep else ""),
            f"{row.avg_ts:.{digits}f} {sign} {row.stddev_ts:.{digits}f}",
            _rate(row.ceiling_ts),
            _rate(row.predicted_ts),
            NONE if row.ttft_ms is None else format_seconds(row.ttft_ms / 1000),
        ]
    )


def printable(text: str) -> str:
    """The text in one line, without what would move the terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _line(cells: list[str]) -> str:
    widths = _WIDTHS.values()
    padded = [
        f"{_cell(cell):>{width}}" if width > 0 else f"{_cell(cell):<{-width}}"
        for cell, width in zip(cells, widths, strict=True)
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
