"""Bytes, seconds and rates as people write and read them.

Every amount of memory in llmrun is an ``int`` of bytes; this module is the only place that turns one into text or text
into one. People read GiB and MiB (powers of 1024); ``8GB`` and ``8G`` mean GiB too, as they do to most tools of this
kind.
"""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_FACTOR = {"": 1, "B": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
# up to 15 digits, which a float still holds to the unit
_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d+)?|\.\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """The bytes that ``8GiB``, ``8GB``, ``8G``, ``512MiB`` or ``1000`` stand for.

    Raises:
        ValueError: the text is not an amount.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if not match:
        raise ValueError(f"not an amount of memory: {text!r} (try 8GiB or 512MiB)")
    return int(float(match[1]) * _FACTOR[match[2].upper()])


def format_bytes(n_bytes: float) -> str:
    """``n_bytes`` as people read it: ``2.5 GiB``, ``36.0 KiB``, ``12 B``."""
    for name, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(n_bytes) >= factor:
            return f"{n_bytes / factor:.1f} {name}"
    return f"{n_bytes:.0f} B"


def format_rate(bytes_per_s: float) -> str:
    """A bandwidth as people read it: ``2.1 GiB/s``."""
    return f"{format_bytes(bytes_per_s)}/s"


def format_tokens_rate(tokens_per_s: float) -> str:
    """A speed as people read it, with three digits that mean something: ``0.131 tok/s``, ``1,500 tok/s``."""
    return f"{tokens_per_s:,.0f} tok/s" if tokens_per_s >= 100 else f"{tokens_per_s:.3g} tok/s"


def rate_digits(tokens_per_s: float) -> int:
    """Digits behind the point that a speed needs in a column: two as in llama-bench, four below one token a second."""
    return 2 if tokens_per_s >= 1 else 4


def format_seconds(seconds: float) -> str:
    """A duration as people read it: ``340 ms``, ``4.2 s``, ``3 min 20 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
