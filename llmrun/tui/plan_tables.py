"""What the views of a plan are drawn with: tables without lines, and the names and colours of tiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from llmrun.planner.plan import CPU, DISK, is_gpu
from llmrun.tui.theme import HEADING, IN_RAM, ON_DISK, ON_GPU
from llmrun.units import format_bytes, format_seconds

LABEL_WIDTH = 12
GAP_WIDTH = 2
NOTHING = "-"


def show(stream: TextIO, draw: Callable[[int], RenderableType]) -> None:
    """Write what ``draw`` makes of a width, without blanks at the ends of lines.

    Plainly in a pipe and under NO_COLOR; as wide as the terminal, and 80 columns in a pipe.
    """
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(draw(console.width))
    stream.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def spaced(*parts: RenderableType) -> Group:
    """One under the other, with an empty line between."""
    lines = [line for part in parts for line in (part, "")]
    return Group(*lines[:-1])


def label_table(lines: Iterable[tuple[str, str | Text]]) -> Table:
    """A label and a text on each line; the text is wrapped in its own column."""
    table = Table.grid(padding=(0, GAP_WIDTH, 0, 0))
    table.add_column(min_width=LABEL_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in lines:
        table.add_row(Text(label), text if isinstance(text, Text) else Text(text))
    return table


def column_table(*headings: str, gap: int = GAP_WIDTH) -> Table:
    """A table without lines: the first column is a name, the others are numbers, right-aligned."""
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style=HEADING)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=bool(index), overflow="fold")
    return table


def home_style(home: str) -> str:
    """The colour of a tier."""
    return ON_GPU if is_gpu(home) else IN_RAM if home == CPU else ON_DISK


def tier_name(home: str) -> str:
    """``cpu`` is the RAM."""
    return "RAM" if home == CPU else home


def resource_name(resource: str) -> str:
    """What works: ``cpu`` is here the processor."""
    return "CPU" if resource == CPU else resource


def fine_seconds(seconds: float) -> str:
    """A duration that may be far below a millisecond."""
    return format_seconds(seconds) if seconds >= 0.01 else f"{seconds * 1000:.2g} ms"


def by_tier(amounts: Mapping[str, int]) -> str:
    """``23.1 GiB from disk, 40.0 GiB from RAM``."""
    order = sorted(amounts, key=lambda home: (home != DISK, home != CPU, home))
    return ", ".join(f"{format_bytes(amounts[home])} from {tier_name(home)}" for home in order if amounts[home])
