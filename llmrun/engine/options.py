"""Which sampling options are valid. Without torch, so that a command can refuse bad ones before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llmrun.errors import UsageError
from llmrun.settings import SamplingSettings

# name: the valid range in words, and the test. top_k 0, top_p 1 and min_p 0 switch the option off.
_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "temperature": ("0 or more (0 is greedy)", lambda value: value >= 0),
    "top_k": ("a whole number, 0 or more (0 is off)", lambda value: value >= 0 and value == int(value)),
    "top_p": ("more than 0 and at most 1", lambda value: 0 < value <= 1),
    "min_p": ("from 0 to 1", lambda value: 0 <= value <= 1),
    "repetition_penalty": ("more than 0 (1 is off)", lambda value: value > 0),
    "max_tokens": ("a whole number, 1 or more", lambda value: value >= 1 and value == int(value)),
}


def violated_range(name: str, value: object) -> str | None:
    """The range in words that ``value`` is outside of, or ``None`` when it is a valid ``name``."""
    words, holds = _RANGES[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return None if is_number and holds(value) else words


def check_options(settings: SamplingSettings) -> None:
    """Refuses sampling settings that mean nothing.

    Raises:
        UsageError: ``bad-option``, for the first value that is outside its range, or an empty stop string.
    """
    for name in _RANGES:
        value = getattr(settings, name)
        words = violated_range(name, value) if value is not None else None
        if words:
            raise _bad_option(name, value, words)
    # torch takes a seed of 64 bits.
    if settings.seed is not None and not 0 <= settings.seed < 2**64:
        raise _bad_option("seed", settings.seed, "a whole number from 0 to 2^64 - 1")
    if not all(settings.stop):
        raise _bad_option("stop", '""', "a text that is not empty")


def _bad_option(name: str, value: object, words: str) -> UsageError:
    option = "--" + name.replace("_", "-")
    return UsageError("bad-option", f"{option} is {value}", hint=f"{option} is {words}")
