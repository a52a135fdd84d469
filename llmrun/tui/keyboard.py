"""The keyboard while the model works: what is typed ahead waits for the next prompt, not drawn into the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def no_echo(stream: TextIO) -> Iterator[None]:
    """The terminal does not echo meanwhile; Ctrl-C works as ever. Does nothing to what is no terminal."""
    if not stream.isatty():
        yield
        return
    import termios

    descriptor = stream.fileno()
    before = termios.tcgetattr(descriptor)
    silent = list(before)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
