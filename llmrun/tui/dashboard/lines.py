"""What the dashboard is drawn with: lines of styled text, bars and sparklines, in Unicode or in ASCII.

Rich's tables and texts wrap, measure and align; that takes longer than a dashboard may cost. These lines know their
width already, so that Rich has only to colour them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

from llmrun.tui import theme

Part = tuple[str, str]  # text and its style
Line = tuple[Part, ...]


@dataclass(frozen=True)
class Glyphs:
    """The signs beside letters and digits, each one column wide; ``spark`` rises."""

    done: str
    todo: str
    peak: str
    computing: str
    coming: str
    spark: str


UNICODE = Glyphs(theme.BAR_DONE, theme.BAR_TODO, "┃", "▲", "↓", "▁▂▃▄▅▆▇█")
ASCII = Glyphs(theme.ASCII_DONE, theme.ASCII_TODO, "|", "^", "v", "_.:-=+*#")


@dataclass(frozen=True)
class Lines:
    """Something that Rich can print: lines that fit already."""

    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        """Without styles."""
        return "\n".join("".join(text for text, _ in line).rstrip() for line in self.lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Each part as a segment."""
        for line in self.lines:
            yield from (Segment(text, console.get_style(style) if style else None) for text, style in line)
            yield Segment.line()


def line_width(line: Line) -> int:
    """Its columns."""
    return sum(cell_len(text) for text, _ in line)


def cut(line: Line, width: int) -> Line:
    """The line, or what fits of it."""
    parts: list[Part] = []
    for text, style in line:
        columns = cell_len(text)
        parts.append((text if columns <= width else set_cell_size(text, width), style))
        width -= columns
        if width <= 0:
            break
    return tuple(parts)


def joined(texts: Iterable[Part], width: int, gap: str = "  ") -> Line:
    """As many of the texts as fit, from the first on; of the first itself, what fits."""
    line: list[Part] = []
    for part in texts:
        columns = cell_len(part[0]) + (len(gap) if line else 0)
        if line and columns > width:
            break
        line += [(gap, ""), part] if line else cut((part,), width)
        width -= columns
    return tuple(line)


def last_rows(text: str, width: int, count: int) -> list[str]:
    """The last rows of a text that a terminal of so many columns breaks where it will."""
    skipped = max(0, len(text) - width * count) // width * width
    return chop_cells(text[skipped:], width)[-count:] if text else []


def bar(share: float, cells: int, glyphs: Glyphs, peak: float | None = None) -> str:
    """A share of 0 to 1 as a bar, with a mark where its peak was."""
    done = round(min(1.0, max(0.0, share)) * cells)
    text = glyphs.done * done + glyphs.todo * (cells - done)
    if peak is None or not cells:
        return text
    at = min(cells, max(1, round(peak * cells))) - 1
    return text[:at] + glyphs.peak + text[at + 1 :]


def sparkline(values: Sequence[float], cells: int, glyphs: Glyphs) -> str:
    """The last values as columns between nothing and the highest of them."""
    shown = values[-cells:] if cells > 0 else ()
    top = max(shown, default=0.0)
    steps = len(glyphs.spark) - 1
    return "".join(glyphs.spark[round(value / top * steps) if top > 0 else 0] for value in shown)
