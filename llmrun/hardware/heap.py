"""How much of what was freed the C library keeps. Only glibc is told anything; with others nothing happens."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from llmrun.units import MIB

_M_TRIM_THRESHOLD = -1  # malloc.h of glibc
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

KEPT_BYTES = 32 * MIB
"""Smaller pieces come from the heap and stay in it: the activations of all models but those with the widest MLPs.

Of larger ones the heap keeps holes that nobody can foretell: up to five pieces of 61 MiB were seen.
"""

TRIM_BYTES = 1 << 30

STEP_TOKENS = 64
"""Passes are a multiple of this, where they can be: matrix products like it."""


def kept_tokens(token_bytes: int, most_tokens: int) -> int:
    """The most tokens, up to ``most_tokens``, whose activations of ``token_bytes`` each the heap keeps.

    Above that a prefill would make every page of them anew in each layer, three times as long as computing. At least
    ``STEP_TOKENS``, so that the widest model has a pass worth reading its weights for.
    """
    kept = (KEPT_BYTES - 1) // token_bytes // STEP_TOKENS * STEP_TOKENS
    return min(most_tokens, max(STEP_TOKENS, kept))


def keep_heap() -> None:
    """Have the heap of this process keep what is freed, from now on, and all threads share one heap.

    The activations of a layer are as large as those of the next. glibc would give what is free at the end of the heap
    back to the system at once, and every page of the next would be made anew, which can take half of a prefill. With a
    heap for each thread, two of them would keep the same.
    """
    if mallopt := _of_glibc("mallopt"):
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TRIM_BYTES)


def trim_heap() -> None:
    """Give back what is free: loading a tokenizer of 128,000 entries leaves 90 MiB of them."""
    if malloc_trim := _of_glibc("malloc_trim"):
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None  # musl has neither
