"""Keeps standard output for data: HiGHS, which solves the linear programs of a plan, may print a line there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

STDOUT, STDERR = 1, 2


@contextmanager
def standard_output_apart() -> Iterator[None]:
    """What C code prints meanwhile goes to standard error; where there is none of the two, nothing is changed."""
    try:
        saved = os.dup(STDOUT)
    except OSError:
        yield
        return
    try:
        os.dup2(STDERR, STDOUT)
        yield
    finally:
        _flush_c()
        os.dup2(saved, STDOUT)
        os.close(saved)


def _flush_c() -> None:
    """C's own buffer would be written later, when standard output is itself again."""
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
