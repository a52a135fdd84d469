"""Lines at the bottom of a terminal that are drawn over and over, while what is above them stays.

Not Rich's ``Live``: that knows neither an answer that is streamed above it nor lines that a narrower window broke. The
cursor is never hidden and each drawing is one write, so that there is nothing to put right, however the process ends.
"""

from __future__ import annotations

import os
import shutil
from typing import TextIO

from rich.console import Console

from llmrun.tui.dashboard.lines import Lines, line_width


class Frame:
    """Draws on a terminal that knows the usual escape sequences; see ``theme.can_draw``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._widths: tuple[int, ...] = ()  # of the lines that stand there

    def room(self) -> tuple[int, int]:
        """Columns and lines, one less than the window has of each.

        On the last column terminals disagree on where the cursor then is, and in a window that is full the top of the
        frame could not be reached.
        """
        columns, rows = self._window()
        return max(1, columns - 1), max(1, rows - 1)

    def draw(self, lines: Lines) -> None:
        """Draw these lines in place of those before, which are erased first.

        A line that was only overwritten is still as long as it was to a terminal that breaks it in a narrower window.
        """
        with self._console.capture() as captured:
            self._console.print(lines, end="", soft_wrap=True)
        text = "\r\n".join(captured.get().splitlines())
        home = self._home()
        self._widths = tuple(line_width(line) for line in lines.lines)
        self._write(f"{home}\x1b[J{text}")

    def erase(self) -> None:
        """Take them away; the cursor is where the first one began."""
        if self._widths:
            home = self._home()
            self._widths = ()
            self._write(f"{home}\x1b[J")

    def _home(self) -> str:
        """To the start of the first line. In a window made narrower each may have been broken into several."""
        columns, _ = self._window()
        above = sum(max(1, -(-width // columns)) for width in self._widths) - 1
        return f"\r\x1b[{above}A" if above > 0 else "\r"

    def _window(self) -> tuple[int, int]:
        """As large as it is now; Rich's own answer is fixed by COLUMNS where that is exported."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns = rows = 0
        usual = shutil.get_terminal_size()
        return columns or usual.columns, rows or usual.lines

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
