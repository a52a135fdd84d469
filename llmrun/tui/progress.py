"""The line that shows before the first token of a slow pass that something happens, and for how long still.

It is drawn on standard error, only in a terminal, only when the wait is longer than ``DELAY_S``, and erased before the
answer begins.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from llmrun.metrics import MetricsState
from llmrun.tui import theme
from llmrun.units import format_bytes, format_rate, format_seconds

if TYPE_CHECKING:
    from rich.live import Live

DELAY_S = 1.0
BAR_CELLS = 20


def progress_text(
    state: MetricsState, now_s: float, elapsed_s: float, bytes_per_s: float | None, *, unicode: bool = True
) -> str:
    """What the line says of a pass at ``now_s``, ``elapsed_s`` after the wait began. Pure."""
    parts = [f"reading {state.prompt_tokens - state.reused_tokens:,} tokens" if state.accepted else "reading the model"]
    if state.prefill_total_units:
        share = state.prefill_done_units / state.prefill_total_units
        cells = round(share * BAR_CELLS)
        done, todo = (theme.BAR_DONE, theme.BAR_TODO) if unicode else (theme.ASCII_DONE, theme.ASCII_TODO)
        parts.append(done * cells + todo * (BAR_CELLS - cells) + f" {share:4.0%}")
    if state.read_bytes:
        parts.append(format_bytes(sum(state.read_bytes.values())))
    if bytes_per_s:
        parts.append(format_rate(bytes_per_s))
    left_s = state.prefill_left_s(now_s)
    parts.append(f"about {format_seconds(max(1.0, left_s))} left" if left_s else f"{elapsed_s:.0f} s")
    return "  ".join(parts)


class ProgressLine:
    """Draws ``progress_text`` from ``begin`` to ``erase`` or the end of the ``with``, if it can be drawn at all.

    Args:
        wanted: whether it is to be drawn.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, *, wanted: bool = True
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._began_s = clock()
        self._note = ""
        self._state = MetricsState()
        self._since: tuple[MetricsState, float] | None = None  # the first state and when it came
        self._unicode = theme.has_unicode(self._stream)
        self._wanted = wanted
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.erase()

    def begin(self, note: str) -> None:
        """Start to draw; until the first event comes the line shows ``note`` and the seconds."""
        self._note, self._began_s = note, self._clock()
        if self._live is None and self._wanted and theme.can_draw(self._stream):
            self._live = _live(self._stream, self.text)
            self._live.start()

    def update(self, state: MetricsState) -> None:
        """Show the pass as it stands."""
        self._state = state
        self._since = self._since or (state, self._clock())

    def write_text(self, write: Callable[[str], None], text: str) -> None:
        """Write a piece of the answer, which takes the place of the line."""
        self.erase()
        write(text)

    def erase(self) -> None:
        """Take the line away; safe to call again."""
        live, self._live = self._live, None
        if live:
            live.stop()

    def text(self) -> str:
        """What the line says now; nothing in the first second, so that a fast start does not flicker."""
        now_s = self._clock()
        if now_s - self._began_s < DELAY_S:
            return ""
        elapsed_s = now_s - self._began_s
        if self._since is None:
            return f"{self._note}  {elapsed_s:.0f} s"
        rate = self._bytes_per_s(*self._since, now_s)
        return progress_text(self._state, now_s, elapsed_s, rate, unicode=self._unicode)

    def _bytes_per_s(self, since: MetricsState, since_s: float, now_s: float) -> float | None:
        """The rate since the first state: what was read ahead before it has no time of its own."""
        if now_s <= since_s:
            return None
        return (sum(self._state.read_bytes.values()) - sum(since.read_bytes.values())) / (now_s - since_s)


def _live(stream: TextIO, text: Callable[[], str]) -> Live:
    """Rich's live display of one line, which asks for ``text`` by itself several times a second."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def line() -> Text:
        return Text(text(), style=theme.DIM, no_wrap=True, overflow="ellipsis")

    return Live(
        get_renderable=line, console=Console(file=stream), transient=True, refresh_per_second=8, redirect_stdout=False
    )
