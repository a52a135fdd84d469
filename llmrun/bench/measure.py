"""The repetitions of a case, on an engine that is loaded or on a new one each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from llmrun.bench.case import Case
from llmrun.bench.sample import RandomTokens, Replayer, Sample, Watch, take_sample

Starts = Callable[[], AbstractContextManager[Replayer]]
"""Starts an engine, which is gone at the end of the ``with``."""


@dataclass(frozen=True)
class Method:
    """How a case is measured.

    ``warm_up``: a run before, that is not counted, of its prompt and one new token. ``own_tokens``: the new tokens are
    those that the model finds likeliest, since random ones cannot be drafted.
    """

    repetitions: int = 5
    warm_up: bool = True
    own_tokens: bool = False


@dataclass(frozen=True)
class Watcher:
    """Who is told what goes on: every event, and the number of each repetition before it (0 is the warm-up)."""

    event: Watch
    repetition: Callable[[int], None]


def measure(engine: Replayer, case: Case, tokens: RandomTokens, method: Method, watcher: Watcher) -> tuple[Sample, ...]:
    """The samples of a case, one after the other on the same engine.

    Raises:
        LlmrunError: what the engine raises.
    """
    if method.warm_up:
        watcher.repetition(0)
        short = replace(case, n_gen=min(1, case.n_gen))
        take_sample(engine, short, tokens, watcher.event, own_tokens=method.own_tokens)
    samples = []
    for number in range(1, method.repetitions + 1):
        watcher.repetition(number)
        samples.append(take_sample(engine, case, tokens, watcher.event, own_tokens=method.own_tokens))
    return tuple(samples)


def measure_cold(
    start: Starts, drop: Callable[[], None], case: Case, tokens: RandomTokens, method: Method, watcher: Watcher
) -> tuple[Sample, ...]:
    """The samples of a case, each on an engine of its own that finds nothing in memory.

    The warm-up is a start without a request: what is imported then is not imported in the first sample.

    Args:
        start: starts the engine; what it takes is part of the time to the first token.
        drop: called before each start.

    Raises:
        LlmrunError: what a start or an engine raises.
    """
    if method.warm_up:
        watcher.repetition(0)
        with start():
            pass
    samples = []
    for number in range(1, method.repetitions + 1):
        watcher.repetition(number)
        drop()
        began_s = time.monotonic()
        with start() as engine:
            start_s = time.monotonic() - began_s
            sample = take_sample(engine, case, tokens, watcher.event, own_tokens=method.own_tokens, start_s=start_s)
            samples.append(sample)
    return tuple(samples)


def load(engine: Replayer, tokens: RandomTokens, watcher: Watcher) -> None:
    """Bring in the weights that stay, untimed: without a warm-up the first sample would."""
    watcher.repetition(0)
    take_sample(engine, Case(1, 0), tokens, watcher.event)
