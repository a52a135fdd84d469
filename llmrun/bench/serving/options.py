"""Options of ``llmrun compare`` whose text has a grammar of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from llmrun.errors import UsageError

OBJECTIVES = ("ttft", "tpot", "e2el")


def split_targets(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Targets, and the objectives among them: ``--goodput ttft:500 tpot:50`` leaves the second an argument."""
    objectives = [text for text in arguments if text.partition(":")[0] in OBJECTIVES]
    return [text for text in arguments if text not in objectives], objectives


def parse_objectives(texts: Sequence[str]) -> dict[str, float]:
    """Objective -> milliseconds, of ``ttft:500``, ``"ttft:500 tpot:50"`` or ``ttft:500,tpot:50``.

    Raises:
        UsageError: ``bad-option``.
    """
    found: dict[str, float] = {}
    for text in re.split(r"[\s,]+", " ".join(texts).strip()) if texts else ():
        name, _, amount = text.partition(":")
        most_ms = _number(amount)
        if name not in OBJECTIVES or most_ms is None or not most_ms > 0:
            raise UsageError(
                "bad-option",
                f"--goodput {text!r} is not an objective and its milliseconds",
                hint=f"`--goodput ttft:500 tpot:50`; objectives are {', '.join(OBJECTIVES)}",
            )
        found[name] = most_ms
    return found


def parse_percentiles(text: str) -> tuple[float, ...]:
    """``50,90,99`` as numbers of 0 to 100, in rising order and each once.

    Raises:
        UsageError: ``bad-option``.
    """
    numbers = [_number(part) for part in text.split(",")]
    found = {number for number in numbers if number is not None and 0 <= number <= 100}
    if None in numbers or len(found) < len(set(numbers)):
        raise UsageError(
            "bad-option", f"--percentiles {text!r} are not numbers of 0 to 100", hint="`--percentiles 50,90,99`"
        )
    return tuple(sorted(found))


def check_positive(option: str, value: float) -> float:
    """``value`` where it is more than 0; infinity is.

    Raises:
        UsageError: ``bad-option``.
    """
    if math.isnan(value) or value <= 0:
        raise UsageError("bad-option", f"{option} {value:g} is not more than 0", hint=f"`{option} 1`")
    return value


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
