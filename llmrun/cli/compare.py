"""``llmrun compare``: the same requests against OpenAI-compatible servers and against llmrun."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from llmrun.cli import compare_options as own
from llmrun.cli import options
from llmrun.cli.run import Notify, Running, RunSettings, start
from llmrun.errors import DeviceError, Interrupted, Row, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from llmrun.bench.serving.measure import Experiment, Measured, OnEnd
    from llmrun.bench.serving.target import Target
    from llmrun.bench.serving.workload import Request

Start = Callable[[RunSettings, Notify, Notify], AbstractContextManager[Running]]


@dataclass(frozen=True)
class CompareSettings:
    """What is compared and how it is told; ``model`` is the name at the servers."""

    targets: tuple[Target, ...]
    experiment: Experiment
    run: RunSettings
    model: str | None = None
    key: str | None = None
    json: bool = False


def compare(
    command: typer.Context,
    target: own.Target,
    model: own.Model = None,
    endpoint: own.Endpoint = own.Interface.CHAT,
    num_prompts: own.NumPrompts = None,
    input_len: own.InputLen = None,
    output_len: own.OutputLen = 128,
    dataset: own.Dataset = None,
    request_rate: own.RequestRate = math.inf,
    burstiness: own.Burstiness = 1.0,
    max_concurrency: own.MaxConcurrency = None,
    num_warmups: own.NumWarmups = 1,
    ignore_eos: own.IgnoreEos = False,
    goodput: own.Goodput = None,
    percentiles: own.Percentiles = "50,90,99",
    timeout: own.Timeout = 21600.0,
    seed: own.Seed = 0,
    json: options.Json = False,
    ram: options.Ram = None,
    vram: options.Vram = None,
    context: options.Context = None,
    plan: options.PlanFile = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Send the same requests to servers and to llmrun.

    The servers are OpenAI-compatible; one target is measured after the other. Figures have the names and
    definitions of `vllm bench serve`. A key is taken from LLMRUN_API_KEY or OPENAI_API_KEY. llmrun answers one
    request at a time; --ram, --vram, --context and --plan are for it.
    """
    from llmrun.bench.serving.endpoint import Api, api_key
    from llmrun.bench.serving.load import Load
    from llmrun.bench.serving.measure import Experiment
    from llmrun.bench.serving.options import check_positive, parse_objectives, parse_percentiles, split_targets
    from llmrun.bench.serving.target import parse_targets
    from llmrun.bench.serving.workload import random_requests

    names, more_goals = split_targets(target)
    if more_goals and not goodput:
        raise UsageError("bad-option", f"{more_goals[0]} is no target", hint=f"`--goodput {' '.join(more_goals)}`")
    targets = parse_targets(names)
    load = Load(
        check_positive("--request-rate", request_rate),
        check_positive("--burstiness", burstiness),
        max_concurrency,
        check_positive("--timeout", timeout),
        seed,
    )
    objectives = parse_objectives([*(goodput or ()), *more_goals])
    requests = _requests(dataset, num_prompts, input_len, output_len, seed)
    n_words = len(requests[0].prompt.split())
    experiment = Experiment(
        requests,
        random_requests(num_warmups, n_words, output_len, f"warm-up {seed}"),  # others: these may stay in a cache
        load,
        Api[endpoint.name],
        ignore_eos,
        objectives,
        parse_percentiles(percentiles),
    )
    run = RunSettings(
        model=model,
        ram_bytes=options.parse_size("--ram", ram),
        vram_bytes=options.parse_size("--vram", vram),
        context_tokens=context,
        plan_file=plan,
        trust_remote_code=trust_remote_code,
    )
    source = command.get_parameter_source("model")
    served = model if source and source.name == "COMMANDLINE" else None
    run_compare(CompareSettings(targets, experiment, run, served, api_key(), json), start)


def run_compare(settings: CompareSettings, start: Start) -> None:
    """Measure and print; however it ends, the targets that were measured until then are printed.

    Raises:
        Interrupted: the user stopped it.
        DeviceError: ``all-requests-failed`` at a target, ``endpoint-unreachable``, ``endpoint-no-model``.
        LlmrunError: what ``start`` raises.
    """
    measured: list[Measured] = []
    try:
        for target in settings.targets:
            one = _measure_local(settings, target, start) if target.url is None else _measure_server(settings, target)
            measured.append(one)
            if one.interrupted:
                raise Interrupted
    finally:
        if measured:
            _print(settings, measured)
    if failed := [one for one in measured if not one.metrics.completed]:
        raise _all_failed(failed)


def _requests(
    dataset: Path | None, num_prompts: int | None, input_len: int | None, output_len: int, seed: int
) -> tuple[Request, ...]:
    from llmrun.bench.serving.workload import random_requests, read_requests

    if not dataset:
        return random_requests(num_prompts or 10, input_len or 512, output_len, seed)
    if input_len:
        raise UsageError("bad-option", "--input-len does not go with --dataset, which has prompts of its own")
    return read_requests(dataset, num_prompts, output_len)


def _measure_server(settings: CompareSettings, target: Target) -> Measured:
    from llmrun.bench.serving.measure import measure_endpoint

    with _progress(target, settings.experiment) as on_end:
        return measure_endpoint(target, settings.experiment, settings.model, settings.key, on_end)


def _measure_local(settings: CompareSettings, target: Target, start: Start) -> Measured:
    from llmrun.bench.serving.measure import measure_local
    from llmrun.tui.progress import ProgressLine

    run = replace(settings.run, model=target.model or settings.run.model)
    with ProgressLine() as line, start(run, _notify, line.begin) as running:
        line.erase()
        engine = running.engine
        with _progress(target, settings.experiment) as on_end:
            return measure_local(target, settings.experiment, running.spec.name, engine, engine.tokenizer, on_end)


@contextmanager
def _progress(target: Target, experiment: Experiment) -> Iterator[OnEnd]:
    """Requests that have ended, on standard error, in a terminal only."""
    from llmrun.bench.serving.chunk import printable
    from llmrun.tui.theme import can_draw

    if not can_draw(sys.stderr):
        yield lambda: None
        return
    label = printable(target.label)
    with typer.progressbar(length=len(experiment.requests), label=label, show_pos=True, file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def _print(settings: CompareSettings, measured: Sequence[Measured]) -> None:
    from llmrun.bench.serving.report import report_json, report_text

    make = report_json if settings.json else report_text
    typer.echo(make(settings.experiment, measured))


def _all_failed(failed: Sequence[Measured]) -> DeviceError:
    rows = [
        Row(one.target.label, f"{count:,}", reason) for one in failed for reason, count in one.metrics.errors.items()
    ]
    labels = ", ".join(one.target.label for one in failed)
    return DeviceError("all-requests-failed", f"not one request was answered by {labels}", rows=tuple(rows))


def _notify(text: str) -> None:
    typer.echo(text, err=True)
