"""What to measure, as llama-bench is asked: ``-p 512 -n 64-256*2 -pg 512,128 -d 0,4096``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llmrun.bench.case import Case
from llmrun.errors import UsageError

MOST_VALUES = 1000  # of one option: a range that is mistyped must not keep the machine busy for weeks
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?:([+*])([0-9]{1,9}))?)?")
_PAIR = re.compile(r"([0-9]{1,9}),\s*([0-9]{1,9})")


def parse_counts(option: str, text: str) -> tuple[int, ...]:
    """The numbers that ``512``, ``128,256``, ``first-last``, ``first-last+step`` or ``first-last*factor`` stand for.

    Args:
        option: the name of the option, for the error.

    Raises:
        UsageError: ``bad-option``, the text is none of these, or a range goes nowhere.
    """
    found: list[int] = []
    for part in text.split(","):
        for value in _range(option, text, part.strip()):
            found.append(value)
            if len(found) > MOST_VALUES:
                raise _bad(option, text, f"is more than {MOST_VALUES:,} values")
    return tuple(found)


def parse_pairs(option: str, texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The (prompt, new) tokens of each text: ``512,128``.

    Raises:
        UsageError: ``bad-option``, a text is no such pair.
    """
    pairs = []
    for text in texts:
        match = _PAIR.fullmatch(text.strip())
        if not match:
            raise UsageError(
                "bad-option",
                f"{option} {text!r} is not a pair of numbers",
                hint=f"write prompt and new tokens: `{option} 512,128`; it may be repeated",
            )
        pairs.append((int(match[1]), int(match[2])))
    return tuple(pairs)


def cases(
    prompts: Sequence[int], gens: Sequence[int], pairs: Sequence[tuple[int, int]], depths: Sequence[int]
) -> tuple[Case, ...]:
    """What to measure in llama-bench's order: at each depth the prompts, the generations, the pairs; each once.

    Raises:
        UsageError: ``bad-option``, all of it is 0.
    """
    asked = [*((prompt, 0) for prompt in prompts), *((0, gen) for gen in gens), *pairs]
    found = dict.fromkeys(Case(*one, depth) for depth in depths for one in asked if any(one))
    if not found:
        raise UsageError("bad-option", "there is nothing to measure", hint="`-p 512` reads, `-n 128` generates tokens")
    return tuple(found)


def _range(option: str, text: str, part: str) -> Iterator[int]:
    match = _RANGE.fullmatch(part)
    if not match:
        raise _bad(option, text, f"has {part!r}, which is no number of tokens" if part else "lacks a number")
    value, last = int(match[1]), int(match[2] or match[1])
    operator, step = match[3] or "+", int(match[4] or 1)
    if value > last:
        raise _bad(option, text, f"has a range that ends before it begins: {part}")
    if match[3] and (step < 1 if operator == "+" else step < 2 or value < 1):
        raise _bad(option, text, f"has a range that never ends: {part}")
    while value <= last:
        yield value
        value = value + step if operator == "+" else value * step


def _bad(option: str, text: str, fault: str) -> UsageError:
    return UsageError(
        "bad-option",
        f"{option} {text!r} {fault}",
        hint=f"write `{option} 512`, a list `128,256`, or a range `128-512+128` or `64-512*2`",
    )
