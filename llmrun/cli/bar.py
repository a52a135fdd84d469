"""A bar on standard error while weights are written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import typer


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], Callable[[int], object]]]:
    """A bar, in a terminal only; it begins when it is told how much there is and how much to do."""
    from llmrun.tui.theme import can_draw

    if not can_draw(sys.stderr):
        yield lambda there, whole: lambda more: None
        return
    with ExitStack() as stack:

        def begun(there: int, whole: int) -> Callable[[int], object]:
            bar = stack.enter_context(typer.progressbar(length=whole, label=label, file=sys.stderr))
            bar.update(there)
            return bar.update

        yield begun
