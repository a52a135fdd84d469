"""Sending all requests as the load says, and keeping what became of each."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from llmrun.bench.serving.outcome import Ask, Failure, Outcome, RequestFailed
from llmrun.bench.serving.schedule import arrival_times
from llmrun.bench.serving.workload import Request

DEFAULT_TIMEOUT_S = 6 * 60 * 60.0
"""As ``vllm bench serve``: long enough that it falsifies no figure of a slow machine."""


@dataclass(frozen=True)
class Load:
    """How requests arrive: ``request_rate`` a second, at most ``max_concurrency`` under way (``None``: any number)."""

    request_rate: float = math.inf
    burstiness: float = 1.0
    max_concurrency: int | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    seed: int = 0


@dataclass(frozen=True)
class Drive:
    """What came of a load: the requests that ended, in that order. ``duration_s`` is first arrival to last end."""

    outcomes: tuple[Outcome, ...]
    duration_s: float
    n_requests: int
    interrupted: bool = False


async def drive(ask: Ask, requests: Sequence[Request], load: Load, on_end: Callable[[], None]) -> Drive:
    """Send every request at its time; ``on_end`` is called whenever one has ended.

    Cancelled, as by Ctrl-C under ``asyncio.run``, it gives up what is under way and returns what has ended.
    """
    outcomes: list[Outcome] = []
    interrupted = False
    gate = asyncio.Semaphore(load.max_concurrency) if load.max_concurrency else nullcontext()
    arrivals = arrival_times(len(requests), load.request_rate, load.burstiness, load.seed)
    began_s = time.monotonic()

    async def one(request: Request, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - time.monotonic()))
        outcomes.append(await _within(gate, ask, request, load.timeout_s))
        on_end()

    try:
        async with asyncio.TaskGroup() as group:
            for request, after_s in zip(requests, arrivals, strict=True):
                group.create_task(one(request, began_s + after_s))
    except asyncio.CancelledError:
        interrupted = True
        if task := asyncio.current_task():
            task.uncancel()  # what closes the connections after this is not to be cancelled too
    return Drive(tuple(outcomes), time.monotonic() - began_s, len(requests), interrupted)


async def attempt(ask: Ask, request: Request, timeout_s: float) -> Outcome:
    """One request, sent now; it fails when it has not ended after ``timeout_s``."""
    sent_s = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            return await ask(request)
    except TimeoutError:
        reason = f"no end within {timeout_s:g} s (--timeout)"
    except RequestFailed as failed:
        reason = str(failed)
    return Failure(sent_s, time.monotonic(), reason)


async def _within(gate: AbstractAsyncContextManager[None], ask: Ask, request: Request, timeout_s: float) -> Outcome:
    """The clock of a request runs from when it is sent, not while it waits for its turn here, as in vLLM."""
    async with gate:
        return await attempt(ask, request, timeout_s)
