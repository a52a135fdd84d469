"""The layer map while it works: a letter for each layer's home, and below it a sign where something happens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from textwrap import wrap

from llmrun.metrics import MetricsState
from llmrun.tui import theme
from llmrun.tui.dashboard.facts import Facts
from llmrun.tui.dashboard.lines import Glyphs, Line, Part, joined
from llmrun.tui.layer_map import rows
from llmrun.tui.plan_tables import home_style

NARROW_INDENT = 5


def computing(state: MetricsState, facts: Facts) -> str | None:
    """The unit that is being computed or waited for: the one after the last that is done."""
    if state.accepted is None or state.finish_reason:
        return None
    if state.unit_done not in facts.order:
        return facts.order[0]
    return facts.order[(facts.order.index(state.unit_done) + 1) % len(facts.order)]


def coming(state: MetricsState) -> set[str]:
    """The units on their way in."""
    return {unit for ring in state.rings.values() for unit in ring.in_flight}


def map_lines(facts: Facts, now: str | None, on_way: Collection[str], width: int, glyphs: Glyphs) -> Iterator[Line]:
    """The layers in rows, the number of its first layer before each; under each row the signs."""
    head = _indent(width)
    for row in rows(len(facts.layers), width - head):
        label = f"{row.start:>{head - 2}}"
        label = f"{'layers' if row.start == 0 else '':<6}{label[6:]}" if head > NARROW_INDENT else label
        shown = [facts.layers[index] for index in row]
        yield ((f"{label}  ", theme.DIM), *_runs((cell.letter, home_style(cell.home)) for _, cell in shown))
        signs = "".join(sign(unit, now, on_way, glyphs) for unit, _ in shown).rstrip()
        yield ((" " * head, ""), (signs, theme.HEADING)) if signs else ()


def others_line(facts: Facts, now: str | None, on_way: Collection[str], width: int, glyphs: Glyphs) -> Line:
    """What is beside the layers: the embedding, the rest, the head."""
    texts = [
        (f"{unit} {cell.letter}{sign(unit, now, on_way, glyphs).strip()}", home_style(cell.home))
        for unit, cell in facts.others
    ]
    label = f"{'beside' if width >= theme.NARROW else '':<{_indent(width)}}"
    return ((label, theme.DIM), *joined(texts, width - len(label)))


def legend_lines(facts: Facts, width: int, glyphs: Glyphs) -> list[Line]:
    """What each letter and sign means, as many on a line as fit."""
    seen = {cell.letter: cell for _, cell in (*facts.layers, *facts.others)}
    entries: list[Part] = [(f"{cell.letter} {cell.meaning}", home_style(cell.home)) for cell in seen.values()]
    entries.append((f"{glyphs.computing} computed", theme.DIM))
    entries.append((f"{glyphs.coming} on its way", theme.DIM))
    lines: list[Line] = []
    indent, room = (" " * _indent(width), ""), max(1, width - _indent(width))
    while entries:
        text, style = entries[0]
        if len(text) > room:
            folded = wrap(text, room, subsequent_indent="  ")
            lines += [(indent, (part, style)) for part in folded]
            del entries[0]
            continue
        line = joined(entries, room)
        lines.append((indent, *line))
        del entries[: (len(line) + 1) // 2]  # with a gap between each two
    return lines


def _indent(width: int) -> int:
    return NARROW_INDENT if width < theme.NARROW else theme.LABEL + 2


def sign(unit: str, now: str | None, on_way: Collection[str], glyphs: Glyphs) -> str:
    """What happens to a unit, in one column; one that is waited for is on its way."""
    return glyphs.coming if unit in on_way else glyphs.computing if unit == now else " "


def _runs(parts: Iterable[Part]) -> Iterator[Part]:
    """Neighbours of one style as one part."""
    for style, run in groupby(parts, key=lambda part: part[1]):
        yield "".join(text for text, _ in run), style
