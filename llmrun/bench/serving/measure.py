"""One experiment against one target after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from llmrun.bench.serving.endpoint import Api, open_endpoint
from llmrun.bench.serving.load import Drive, Load, attempt, drive
from llmrun.bench.serving.local import QUEUE_NOTE, Tokenizer, open_local
from llmrun.bench.serving.metrics import Objectives, ServingMetrics, summarise
from llmrun.bench.serving.outcome import Ask, Failure
from llmrun.bench.serving.target import Target
from llmrun.bench.serving.workload import Request
from llmrun.engine.session import TokenGenerator

OnEnd = Callable[[], None]


@dataclass(frozen=True)
class Experiment:
    """What every target is asked, and by what it is judged; ``warmups`` go before, one by one, and are not measured."""

    requests: tuple[Request, ...]
    warmups: tuple[Request, ...]
    load: Load
    api: Api
    ignore_eos: bool
    objectives: Objectives
    percentiles: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """What came of an experiment at a target; ``model`` is what the target calls it."""

    target: Target
    model: str
    metrics: ServingMetrics
    interrupted: bool
    notes: tuple[str, ...]


def measure_endpoint(
    target: Target, experiment: Experiment, model: str | None, key: str | None, on_end: OnEnd
) -> Measured:
    """The experiment at a server.

    Raises:
        DeviceError: ``endpoint-unreachable``, ``endpoint-no-model``.
    """

    async def run() -> Measured:
        assert target.url is not None
        opening = open_endpoint(target.url, model, experiment.api, ignore_eos=experiment.ignore_eos, key=key)
        async with opening as endpoint:
            done = await _measure(endpoint.ask, experiment, on_end)
        return _measured(target, endpoint.model, experiment, *done)

    return asyncio.run(run())


def measure_local(
    target: Target, experiment: Experiment, name: str, generator: TokenGenerator, tokenizer: Tokenizer, on_end: OnEnd
) -> Measured:
    """The experiment on an engine in this process, of the model ``name``."""
    chat = experiment.api is Api.CHAT
    with open_local(generator, tokenizer, chat=chat, ignore_eos=experiment.ignore_eos) as model:
        done = asyncio.run(_measure(model.ask, experiment, on_end))
    queue = (QUEUE_NOTE,) if len(experiment.requests) > 1 and experiment.load.max_concurrency != 1 else ()
    return _measured(target, name, experiment, *done, notes=queue)


async def _measure(ask: Ask, experiment: Experiment, on_end: OnEnd) -> tuple[list[Failure], Drive]:
    warm = [await attempt(ask, request, experiment.load.timeout_s) for request in experiment.warmups]
    failures = [outcome for outcome in warm if isinstance(outcome, Failure)]
    return failures, await drive(ask, experiment.requests, experiment.load, on_end)


def _measured(
    target: Target,
    model: str,
    experiment: Experiment,
    cold: list[Failure],
    done: Drive,
    notes: tuple[str, ...] = (),
) -> Measured:
    metrics = summarise(done, experiment.objectives, experiment.percentiles)
    if cold:
        notes += (f"{len(cold)} of {len(experiment.warmups)} warm-up requests failed: {cold[0].reason}",)
    if done.interrupted:
        notes += (f"interrupted: {done.n_requests - len(done.outcomes)} of {done.n_requests} requests had not ended",)
    return Measured(target, model, metrics, done.interrupted, notes + _doubts(metrics, experiment))


def _doubts(metrics: ServingMetrics, experiment: Experiment) -> tuple[str, ...]:
    """What a reader of the figures has to know."""
    doubts = []
    if "chunks" in metrics.counted_by:
        doubts.append("the server does not count its output tokens: each chunk with text counts as one")
    if metrics.completed and metrics.total_input_tokens is None:
        doubts.append("the server does not count the tokens of the prompts")
    if 2 * (metrics.total_cached_tokens or 0) > (metrics.total_input_tokens or 0):
        doubts.append("most of the prompts' tokens were in its cache, as after an earlier run: take another --seed")
    asked = experiment.requests[0].max_tokens
    mean = metrics.total_output_tokens / metrics.completed if metrics.completed else asked
    if mean < asked:
        why = (
            "the server does not heed --ignore-eos"
            if experiment.ignore_eos
            else "`--ignore-eos` goes on, where the server can"
        )
        doubts.append(f"answers ended early: {mean:.1f} tokens on average of {asked} ({why})")
    return tuple(doubts)
