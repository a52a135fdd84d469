"""What is drawn while a model works, from the events of the work.

A thread of its own draws, at most ten times a second and so seldom that it takes less than a hundredth of a core: after
a drawing that took long it waits for longer. Events only change the figures that it will find.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from llmrun.checkpoint.spec import ModelSpec
from llmrun.events import Accepted, Event
from llmrun.hardware.speeds import Speeds
from llmrun.metrics import MetricsState, apply
from llmrun.planner.plan import Plan
from llmrun.tui import theme
from llmrun.tui.answer import CONTROLS
from llmrun.tui.dashboard.facts import Facts, facts
from llmrun.tui.dashboard.lines import Line, Lines, cut, last_rows
from llmrun.tui.dashboard.screen import dashboard
from llmrun.tui.frame import Frame
from llmrun.tui.progress import progress_text
from llmrun.tui.stats import status_text
from llmrun.tui.ui import Ui

SHORTEST_S, LONGEST_S = 0.1, 1.0
"""Between two drawings."""
SHARE = 0.008
"""Of a core, at most, for drawing."""

Write = Callable[[str], None]


class LiveView:
    """Folds events into figures, and draws them from ``start`` to ``close``.

    Args:
        ui: what is drawn.
        known: what is shown beside the figures.
        stream: where; nothing is drawn on what is no terminal.
        holds_text: whether the text of an answer goes to the same terminal. Its last line is then a part of what is
            drawn, and is written when it is complete.
    """

    def __init__(self, ui: Ui, known: Facts, stream: TextIO, *, holds_text: bool = False) -> None:
        self.state = MetricsState()
        self.note = ""
        self._ui = ui
        self._known = known
        self._unicode = theme.has_unicode(stream)
        self._frame = Frame(stream) if ui is not Ui.NONE and theme.can_draw(stream) else None
        self._holds_text = holds_text
        self._held: tuple[Write, str] | None = None
        self._drawn: tuple[MetricsState, str, str, int, int, int] | None = None
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._drawer = threading.Thread(target=self._run, name="drawer")

    def apply(self, event: Event) -> None:
        """Take an event; a request that is accepted begins with figures of its own."""
        if isinstance(event, Accepted):
            self.state = MetricsState(memory=self.state.memory)
        self.state = apply(self.state, event)

    def update(self, state: MetricsState) -> None:
        """Take figures that somebody else has folded."""
        self.state = state

    def write_text(self, write: Write, text: str) -> None:
        """Write a piece of an answer, above what is drawn."""
        if self._frame is None or not self._holds_text or self._stop.is_set():
            write(text)
            return
        with self._lock:
            self._held = (write, (self._held[1] if self._held else "") + text)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is drawn meanwhile, and nothing stands there: room for other text, in whole lines."""
        with self._lock:
            if self._frame:
                self._frame.erase()
                self._drawn = None
            yield

    def start(self) -> None:
        """Begin to draw."""
        if self._frame:
            self._drawer.start()

    def erase(self) -> None:
        """End: what was drawn is taken away, what was held is written. Safe to call again."""
        self._stop.set()
        if self._drawer.ident:
            self._drawer.join()
        held, self._held = self._held, None
        if held:
            held[0](held[1])

    def _run(self) -> None:
        """The thread that draws, until it is stopped or the terminal is gone."""
        assert self._frame
        wait_s = SHORTEST_S
        with suppress(OSError, ValueError):
            while not self._stop.wait(wait_s):
                began_s = time.thread_time()
                with self._lock:
                    self._draw(self._frame)
                wait_s = min(LONGEST_S, max(SHORTEST_S, (time.thread_time() - began_s) / SHARE))
            with self._lock:
                self._frame.erase()

    def _draw(self, frame: Frame) -> None:
        """Draw once, unless the same stands there already."""
        open_line = self._write_whole_lines(frame)
        now_s = time.monotonic()
        columns, rows = frame.room()
        shown = (self.state, self.note, open_line, columns, rows, int(now_s * 2))
        if shown != self._drawn:
            frame.draw(self._lines(open_line, columns, rows, now_s))
            self._drawn = shown

    def _lines(self, open_line: str, columns: int, rows: int, now_s: float) -> Lines:
        """What is drawn: of an answer's open line the end, in a third of the window, and the figures below it."""
        text = last_rows(open_line.translate(CONTROLS).expandtabs(), columns, max(1, rows // 3))
        above: tuple[Line, ...] = tuple(((row, ""),) for row in text)
        return Lines((*above, *self._figures(columns, max(0, rows - len(above)), now_s).lines))

    def _figures(self, columns: int, rows: int, now_s: float) -> Lines:
        if self._ui is Ui.DASHBOARD:
            return dashboard(self.state, self._known, columns, rows, now_s, unicode=self._unicode, note=self.note)
        return Lines((cut(((self._simple(columns, now_s), theme.DIM),), columns),))

    def _simple(self, columns: int, now_s: float) -> str:
        state, note = self.state, f"{self.note}  " if self.note else ""
        if state.first_token or state.accepted is None:
            return note + status_text(state, columns - len(note))
        disk = state.read_bytes_per_s("disk", now_s)
        return note + progress_text(state, now_s, now_s - state.accepted.at_s, disk, unicode=self._unicode)

    def _write_whole_lines(self, frame: Frame) -> str:
        """Write what is held up to its last line end, above the frame; returns the rest."""
        if self._held is None:
            return ""
        write, text = self._held
        whole, line_end, rest = text.rpartition("\n")
        if line_end:
            frame.erase()
            self._drawn = None
            self._held = (write, rest)
            write(whole + line_end)
        return rest


@contextmanager
def live_view(
    ui: Ui,
    spec: ModelSpec,
    plan: Plan,
    speeds: Speeds | None,
    stream: TextIO | None = None,
    *,
    holds_text: bool = False,
) -> Iterator[LiveView]:
    """A view of a run, drawn on ``stream`` (standard error) until the end of the ``with``, then gone.

    Args:
        speeds: what was measured of this host, to hold the rates against.
        holds_text: see ``LiveView``.
    """
    view = LiveView(ui, facts(spec, plan, speeds), stream or sys.stderr, holds_text=holds_text)
    try:
        view.start()
        yield view
    finally:
        view.erase()
