"""What fits of the dashboard: as many of its lines as there is room for, the most important first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import zip_longest

from llmrun.metrics import MetricsState
from llmrun.tui.dashboard import rows
from llmrun.tui.dashboard.facts import Facts
from llmrun.tui.dashboard.layers import coming, computing, legend_lines, map_lines, others_line
from llmrun.tui.dashboard.lines import ASCII, UNICODE, Line, Lines, line_width
from llmrun.tui.dashboard.rows import View

TWO_COLUMNS = 110  # from so many on
GUTTER = 3
NARROWEST_MAP = 16


class Place(IntEnum):
    """Where a line stands."""

    TOP = 0
    LEFT = 1
    RIGHT = 2
    BOTTOM = 3


@dataclass(frozen=True)
class Block:
    """Lines that are shown together or not at all; rank 0 is shown before all others."""

    rank: int
    place: Place
    lines: tuple[Line, ...]


def dashboard(
    state: MetricsState, facts: Facts, width: int, height: int, now_s: float, *, unicode: bool = True, note: str = ""
) -> Lines:
    """The figures at ``now_s`` (of ``time.monotonic``) in at most ``height`` lines of at most ``width`` columns. Pure.

    ``note`` says what is being run, such as the row of a benchmark.
    Colour never says anything alone. From 110 columns on the figures stand in two columns.
    """
    view = View(state, facts, now_s, max(1, width), UNICODE if unicode else ASCII, note)
    wide = width >= TWO_COLUMNS
    half = replace(view, width=(width - GUTTER) // 2) if wide else view
    blocks = [*_figures(half), *_whole_width(view)]
    return Lines(tuple(_drawn(_chosen(blocks, height, wide=wide), half.width, wide=wide)))


def _figures(view: View) -> Iterator[Block]:
    state = view.state
    in_prefill = state.first_token is None
    yield Block(4 if in_prefill else 0, Place.LEFT, (rows.speed(view),))
    yield Block(0, Place.LEFT, (rows.prefill(view),)) if in_prefill else Block(7, Place.LEFT, (rows.pace(view),))
    yield Block(1, Place.LEFT, (rows.tokens(view),))
    yield from (Block(2, Place.LEFT, (line,)) for line in rows.drafts(view))
    yield Block(6, Place.LEFT, (rows.first_token(view),))
    yield from (Block(3, Place.LEFT, (line,)) for line in rows.memory(view))
    yield from (Block(2 if one.tier else 5, Place.RIGHT, (rows.way(view, one),)) for one in view.facts.ways)
    yield Block(8, Place.RIGHT, (rows.stalls(view),))
    yield Block(9, Place.RIGHT, (rows.now(view),))
    yield from (Block(10, Place.RIGHT, (line,)) for line in rows.rings(view))


def _whole_width(view: View) -> Iterator[Block]:
    now, on_way = computing(view.state, view.facts), coming(view.state)
    yield Block(11, Place.TOP, (rows.title(view),))
    if view.width < NARROWEST_MAP:
        return
    layers = map_lines(view.facts, now, on_way, view.width, view.glyphs)
    yield Block(12, Place.BOTTOM, (*layers, others_line(view.facts, now, on_way, view.width, view.glyphs)))
    yield Block(13, Place.BOTTOM, tuple(legend_lines(view.facts, view.width, view.glyphs)))


def _chosen(blocks: Sequence[Block], height: int, *, wide: bool) -> list[Block]:
    """The first blocks by rank, as many as fit, in the order of their places."""
    chosen: list[Block] = []
    for block in sorted(blocks, key=lambda block: block.rank):
        if _height([*chosen, block], wide=wide) > height:
            break
        chosen.append(block)
    return [block for block in blocks if any(block is one for one in chosen)]  # two of them may read alike


def _height(blocks: Sequence[Block], *, wide: bool) -> int:
    count = dict.fromkeys(Place, 0)
    for block in blocks:
        count[block.place] += len(block.lines)
    left, right = count[Place.LEFT], count[Place.RIGHT]
    return count[Place.TOP] + count[Place.BOTTOM] + (max(left, right) if wide else left + right)


def _drawn(blocks: Sequence[Block], half_width: int, *, wide: bool) -> Iterator[Line]:
    at = {place: [line for block in blocks if block.place is place for line in block.lines] for place in Place}
    yield from at[Place.TOP]
    if wide:
        for left, right in zip_longest(at[Place.LEFT], at[Place.RIGHT], fillvalue=()):
            gap = " " * (half_width + GUTTER - line_width(left)) if right else ""
            yield (*left, (gap, ""), *right)
    else:
        yield from at[Place.LEFT]
        yield from at[Place.RIGHT]
    yield from at[Place.BOTTOM]
