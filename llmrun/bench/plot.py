"""A picture of a sweep: tokens a second over the memory or the context. matplotlib is asked for only here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llmrun.bench.markdown import printable
from llmrun.bench.row import Row
from llmrun.bench.sweep import CONTEXT, VRAM, swept_option
from llmrun.errors import DeviceError, UsageError
from llmrun.units import GIB, parse_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
_DASHED = {"ceiling_ts": "--", "predicted_ts": "-."}
_FLAT = 20  # times the lowest rate
_LABELS = {CONTEXT: "context (tokens)", VRAM: "memory on each GPU (GiB)"}


def check_plot(path: Path) -> None:
    """That a picture can be written there, before anything is measured for it.

    Raises:
        UsageError: ``missing-extra``, matplotlib is not installed; ``bad-option``, the file is no .png or .svg.
        DeviceError: ``write-failed``, there is no such folder, or it is read-only.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError("bad-option", f"--plot {str(path)!r} is no picture", hint="a name that ends in .png or .svg")
    if find_spec("matplotlib") is None:
        raise UsageError(
            "missing-extra", "--plot needs matplotlib, which is not installed", hint="`pip install 'llmrun[plot]'`"
        )
    if not path.parent.is_dir():
        raise DeviceError("write-failed", f"there is no folder {str(path.parent)!r} for {path.name}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DeviceError("write-failed", f"{str(path)!r} cannot be written", hint="check the permissions")


def write_plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the rows that have a sweep value, one line a case; nothing is written if there are none.

    Raises:
        DeviceError: ``write-failed``.
    """
    swept = [row for row in rows if row.sweep is not None]
    if not swept:
        return
    try:
        draw(swept).savefig(path)
    except OSError as error:
        raise DeviceError("write-failed", f"{str(path)!r} cannot be written: {error.strerror or error}") from None


def draw(rows: Sequence[Row]) -> Figure:
    """The picture: means with their deviations, the ceiling dashed, the prediction dash-dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    option = swept_option(rows)
    for name, line in _lines(rows).items():
        _draw_line(axes, name, sorted(line, key=lambda row: _position(row, option)), option)
    axes.set_xlabel(_LABELS.get(option, "memory of the process (GiB)"))
    axes.set_ylabel("tokens a second")
    _scale(axes, rows)
    axes.set_title(_ascii(rows[0].model_type), parse_math=False)
    axes.grid(alpha=0.3)
    _legend(axes, rows)
    return figure


def _draw_line(axes: Axes, name: str, rows: Sequence[Row], option: str) -> None:
    at = [_position(row, option) for row in rows]
    means, deviations = [row.avg_ts for row in rows], [row.stddev_ts for row in rows]
    color = axes.errorbar(at, means, yerr=deviations, marker="o", capsize=3, label=name)[0].get_color()
    for figure, style in _DASHED.items():
        known = [(x, getattr(row, figure)) for x, row in zip(at, rows, strict=True) if getattr(row, figure) is not None]
        axes.plot([x for x, _ in known], [y for _, y in known], linestyle=style, color=color, alpha=0.7)


def _scale(axes: Axes, rows: Sequence[Row]) -> None:
    """From zero, unless a prompt's rates would press those of single tokens flat."""
    rates = [row.avg_ts for row in rows]
    if max(rates) > _FLAT * min(rates):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _legend(axes: Axes, rows: Sequence[Row]) -> None:
    for figure, style in _DASHED.items():
        if any(getattr(row, figure) is not None for row in rows):
            axes.plot([], [], linestyle=style, color="gray", label=figure.removesuffix("_ts"))
    axes.legend()


def _lines(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(f"{row.case.name}, {row.cache_state}", []).append(row)
    return found


def _position(row: Row, option: str) -> float:
    value = row.sweep or "0"
    return float(value) if option == CONTEXT else parse_bytes(value) / GIB


def _ascii(text: str) -> str:
    """A letter that the font lacks would be a warning on the terminal."""
    return printable(text).encode("ascii", "replace").decode()
