"""Writes an answer as it comes, with a progress line before its first word or a view of the run below it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Protocol, TextIO

from llmrun.events import Event, Finished, FinishReason, Token
from llmrun.metrics import MetricsState, apply

Write = Callable[[str], None]

# C0 without tab and newline, DEL, C1: what moves a terminal's cursor or changes its state.
CONTROLS = dict.fromkeys([*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)])


class View(Protocol):
    """What is drawn while an answer comes: ``ProgressLine`` or ``LiveView``."""

    def update(self, state: MetricsState) -> None:
        """Show these figures."""

    def write_text(self, write: Write, text: str) -> None:
        """Write a piece of the answer where it belongs."""

    def erase(self) -> None:
        """Take away what is drawn."""


def show_answer(events: Generator[Event, None, None], write: Write, view: View) -> MetricsState:
    """Write the text of the events as they come and return what was measured.

    Ctrl-C ends the answer, not the program: the finish reason is then ``interrupted``. The view is erased in the end.
    """
    state = MetricsState()
    try:
        with closing(events):
            for event in events:
                state = apply(state, event)
                view.update(state)
                if isinstance(event, Token | Finished) and event.text:
                    view.write_text(write, event.text)
    except KeyboardInterrupt:
        state = apply(state, Finished(time.monotonic(), FinishReason.INTERRUPTED))
    finally:
        view.erase()
    return state


class Answer:
    """The answer as it is written; without a stream it is only kept."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._visible = stream is not None and stream.isatty()
        self.text = ""

    def write(self, text: str) -> None:
        """Write a piece at once. A terminal is spared the control characters that a model may make up."""
        self.text += text
        if self._stream is not None:
            self._stream.write(text.translate(CONTROLS) if self._visible else text)
            self._stream.flush()

    def end(self) -> None:
        """End the last line."""
        if self._stream is not None and self.text and not self.text.endswith("\n"):
            self._stream.write("\n")
            self._stream.flush()
