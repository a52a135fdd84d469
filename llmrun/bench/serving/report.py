"""A comparison as a table for people and as one JSON object for scripts, with vLLM's names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from statistics import mean
from typing import Any

from llmrun import __version__
from llmrun.bench.serving.chunk import printable
from llmrun.bench.serving.measure import Experiment, Measured
from llmrun.bench.serving.metrics import Distribution, ServingMetrics

SCHEMA_VERSION = 1

LATENCIES = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2el": "E2EL",
}
COUNTS = {
    "completed": "Successful requests",
    "failed": "Failed requests",
    "max_concurrent_requests": "Peak concurrent requests",
    "total_input_tokens": "Total input tokens",
    "total_cached_tokens": "of these in a prompt cache",
    "total_output_tokens": "Total generated tokens",
}
RATES = {
    "duration": "Benchmark duration (s)",
    "request_throughput": "Request throughput (req/s)",
    "request_goodput": "Request goodput (req/s)",
    "output_throughput": "Output token throughput (tok/s)",
    "total_token_throughput": "Total token throughput (tok/s)",
}

Figures = dict[str, float | int | None]


def figures(metrics: ServingMetrics, percentiles: Sequence[float]) -> Figures:
    """The metrics by the names that ``vllm bench serve`` gives them in its JSON."""
    latencies = {
        key: value for name in LATENCIES for key, value in _latency(name, getattr(metrics, name), percentiles).items()
    }
    return {
        "duration": metrics.duration_s,
        "completed": metrics.completed,
        "failed": metrics.failed,
        "total_input_tokens": metrics.total_input_tokens,
        "total_cached_tokens": metrics.total_cached_tokens,
        "total_output_tokens": metrics.total_output_tokens,
        "request_throughput": metrics.request_throughput,
        "request_goodput": metrics.request_goodput,
        "output_throughput": metrics.output_throughput,
        "total_token_throughput": metrics.total_token_throughput,
        "max_concurrent_requests": metrics.max_concurrent_requests,
        **latencies,
    }


def _latency(name: str, found: Distribution | None, percentiles: Sequence[float]) -> Figures:
    values: Figures = {f"{part}_{name}_ms": getattr(found, part, None) for part in ("mean", "median", "std")}
    at = dict(found.percentiles) if found else {}
    return values | {f"p{p:g}_{name}_ms": at.get(p) for p in percentiles}


def ratios(now: Figures, first: Figures) -> dict[str, float]:
    """Each figure over that of the first target, where there are both; counts have none."""
    found = {}
    for name, value in now.items():
        base = first.get(name)
        if value is not None and base and name not in COUNTS:
            found[name] = value / base
    return found


def report_json(experiment: Experiment, measured: Sequence[Measured]) -> str:
    """One object in one line; what there is no figure of is ``null``."""
    return json.dumps(report(experiment, measured), ensure_ascii=False, allow_nan=False)


def report(experiment: Experiment, measured: Sequence[Measured]) -> dict[str, Any]:
    """The object: each of its ``targets`` is much like a file of ``vllm bench serve --save-result``."""
    load = experiment.load
    first = figures(measured[0].metrics, experiment.percentiles)
    return {
        "schema_version": SCHEMA_VERSION,
        "llmrun_version": __version__,
        "endpoint": experiment.api.value,
        "num_prompts": len(experiment.requests),
        "num_warmups": len(experiment.warmups),
        "mean_input_words": mean(len(request.prompt.split()) for request in experiment.requests),
        "output_len": experiment.requests[0].max_tokens,
        "ignore_eos": experiment.ignore_eos,
        "seed": load.seed,
        "request_rate": load.request_rate if math.isfinite(load.request_rate) else "inf",
        "burstiness": load.burstiness if math.isfinite(load.burstiness) else "inf",
        "max_concurrency": load.max_concurrency,
        "goodput": dict(experiment.objectives),
        "targets": [_target(experiment, one, first) for one in measured],
    }


def _target(experiment: Experiment, one: Measured, first: Figures) -> dict[str, Any]:
    found = figures(one.metrics, experiment.percentiles)
    return {
        "label": one.target.label,
        "url": one.target.shown_url,
        "model_id": one.model,
        **found,
        "ratio_to_first": ratios(found, first),
        "counted_by": list(one.metrics.counted_by),
        "errors": [{"reason": reason, "count": count} for reason, count in one.metrics.errors.items()],
        "interrupted": one.interrupted,
        "notes": list(one.notes),
    }


def report_text(experiment: Experiment, measured: Sequence[Measured]) -> str:
    """The workload, a column of figures for each target with its ratio to the first, and notes."""
    return "\n".join([workload_text(experiment), "", *_table(experiment, measured), *_remarks(measured)])


def workload_text(experiment: Experiment) -> str:
    """What was asked, in a line, and in another what is good."""
    load = experiment.load
    arrivals = "all at once" if math.isinf(load.request_rate) else f"{load.request_rate:g} requests/s"
    if math.isfinite(load.request_rate) and load.burstiness != 1:
        arrivals += f" with burstiness {load.burstiness:g}"
    at_most = f"at most {load.max_concurrency} under way" if load.max_concurrency else "any number under way"
    asked = f"{experiment.requests[0].max_tokens:,} tokens each"
    parts = [
        f"{len(experiment.requests):,} prompts of {_words(experiment)}, {asked}",
        f"{arrivals}, {at_most}",
        f"warm-ups {len(experiment.warmups)}",
        f"seed {load.seed}",
    ]
    goals = [f"{name} within {most_ms:g} ms" for name, most_ms in experiment.objectives.items()]
    return "; ".join(parts) + ("\ngood: " + ", ".join(goals) if goals else "")


def _words(experiment: Experiment) -> str:
    counts = [len(request.prompt.split()) for request in experiment.requests]
    low, high = min(counts), max(counts)
    return f"{low:,} words" if low == high else f"{low:,} to {high:,} words"


def _table(experiment: Experiment, measured: Sequence[Measured]) -> Iterator[str]:
    columns = [figures(one.metrics, experiment.percentiles) for one in measured]
    rows = [["", *_cells([printable(one.target.label) for one in measured])]]
    rows.append(["Model", *_cells([printable(one.model) for one in measured])])
    for name, title in _titles(experiment).items():
        values = [_number(name, column[name]) for column in columns]
        shares = [ratios(column, columns[0]).get(name) for column in columns]
        rows.append([title, *_cells(values, shares)])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _cells(values: Sequence[str], shares: Sequence[float | None] = ()) -> list[str]:
    """A column for each target, and after each but the first one for its share."""
    cells = list(values[:1])
    for at, value in enumerate(values[1:], 1):
        share = shares[at] if shares else None
        cells += [value, "" if share is None else _share(share)]
    return cells


def _share(share: float) -> str:
    """In percent; what is less than a tenth with two digits that mean something."""
    return f"{share:.0%}" if share >= 0.1 else f"{share * 100:.2g}%"


def _titles(experiment: Experiment) -> dict[str, str]:
    """The rows; no goodput without objectives, and the 50th percentile is the median already."""
    titles = COUNTS | RATES
    if not experiment.objectives:
        del titles["request_goodput"]
    for name, title in LATENCIES.items():
        titles |= {f"mean_{name}_ms": f"Mean {title} (ms)", f"median_{name}_ms": f"Median {title} (ms)"}
        titles |= {f"p{p:g}_{name}_ms": f"P{p:g} {title} (ms)" for p in experiment.percentiles if p != 50}
    return titles


def _number(name: str, value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if name in COUNTS else f"{value:,.2f}"


def _remarks(measured: Sequence[Measured]) -> Iterator[str]:
    lines = [
        f"{printable(one.target.label)}: {line}"
        for one in measured
        for line in [f"{count} failed: {reason}" for reason, count in one.metrics.errors.items()] + list(one.notes)
    ]
    if lines:
        yield from ["", *lines]
