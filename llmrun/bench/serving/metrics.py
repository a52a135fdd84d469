"""Figures of a load, by the definitions and names of ``vllm bench serve``.

Requests that failed count in ``failed`` and ``errors`` only. A figure that there is none of is ``None``: a TPOT of
answers of one token, the input tokens of a server that does not count them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmrun.bench.serving.load import Drive
from llmrun.bench.serving.outcome import Answer, Failure

Objectives = Mapping[str, float]
"""``ttft``, ``tpot``, ``e2el`` -> the most milliseconds that a good request takes."""


@dataclass(frozen=True)
class Distribution:
    """Of samples in milliseconds; ``std`` is the deviation of the population, ``percentiles`` are (p, value)."""

    mean: float
    median: float
    std: float
    percentiles: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ServingMetrics:
    """What was measured of one target.

    Attributes:
        duration_s: from the first arrival to the last end.
        total_input_tokens: of the completed requests, as the server counts them.
        total_cached_tokens: those of them that were in a cache of prompts.
        total_output_tokens: of the completed requests; ``counted_by`` says how, see ``Answer``.
        request_throughput: completed / duration, per second.
        request_goodput: those of them that meet every objective / duration; ``None`` without objectives.
        output_throughput: output tokens / duration.
        total_token_throughput: input and output tokens / duration.
        max_concurrent_requests: most completed requests that were under way at once.
        ttft, tpot, itl, e2el: see ``Answer``; TPOT of answers of two tokens and more, ITL of all gaps of all answers.
        errors: reason -> how many requests failed for it, the most frequent first.
    """

    duration_s: float
    completed: int
    failed: int
    total_input_tokens: int | None
    total_cached_tokens: int | None
    total_output_tokens: int
    counted_by: tuple[str, ...]
    request_throughput: float
    request_goodput: float | None
    output_throughput: float
    total_token_throughput: float | None
    max_concurrent_requests: int
    ttft: Distribution | None
    tpot: Distribution | None
    itl: Distribution | None
    e2el: Distribution | None
    errors: Mapping[str, int]


def summarise(drive: Drive, objectives: Objectives, percentiles: Sequence[float]) -> ServingMetrics:
    """The figures of a load."""
    answers = [one for one in drive.outcomes if isinstance(one, Answer)]
    failures = [one for one in drive.outcomes if isinstance(one, Failure)]
    n_input = _sum_known([answer.prompt_tokens for answer in answers])
    n_output = sum(answer.output_tokens for answer in answers)
    per_s = 1 / drive.duration_s if drive.duration_s > 0 else 0.0
    return ServingMetrics(
        duration_s=drive.duration_s,
        completed=len(answers),
        failed=len(failures),
        total_input_tokens=n_input,
        total_cached_tokens=_sum_known([answer.cached_tokens for answer in answers]),
        total_output_tokens=n_output,
        counted_by=tuple(sorted({answer.counted_by for answer in answers})),
        request_throughput=len(answers) * per_s,
        request_goodput=sum(is_good(answer, objectives) for answer in answers) * per_s if objectives else None,
        output_throughput=n_output * per_s,
        total_token_throughput=None if n_input is None else (n_input + n_output) * per_s,
        max_concurrent_requests=most_at_once(answers),
        ttft=distribution([answer.ttft_s for answer in answers], percentiles),
        tpot=distribution([answer.tpot_s for answer in answers if answer.tpot_s is not None], percentiles),
        itl=distribution([gap_s for answer in answers for gap_s in answer.itl_s], percentiles),
        e2el=distribution([answer.e2el_s for answer in answers], percentiles),
        errors=dict(Counter(failure.reason for failure in failures).most_common()),
    )


def is_good(answer: Answer, objectives: Objectives) -> bool:
    """Whether a request took no more than each objective; a TPOT that there is none of counts as 0, as in vLLM."""
    took_s = {"ttft": answer.ttft_s, "tpot": answer.tpot_s or 0.0, "e2el": answer.e2el_s}
    return all(took_s[name] * 1000 <= most_ms for name, most_ms in objectives.items())


def distribution(samples_s: Sequence[float], percentiles: Sequence[float]) -> Distribution | None:
    """Of samples in seconds, in milliseconds; percentiles by linear interpolation. ``None`` without samples."""
    if not samples_s:
        return None
    samples_ms = np.asarray(samples_s) * 1000
    at = np.percentile(samples_ms, list(percentiles))
    return Distribution(
        float(samples_ms.mean()),
        float(np.median(samples_ms)),
        float(samples_ms.std()),
        tuple(zip(percentiles, map(float, at), strict=True)),
    )


def most_at_once(answers: Iterable[Answer]) -> int:
    """How many requests were under way at once at most; one that is sent when another ends comes after it."""
    steps = sorted(step for answer in answers for step in ((answer.sent_s, 1), (answer.end_s, -1)))
    now = most = 0
    for _, change in steps:
        now += change
        most = max(most, now)
    return most


def _sum_known(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
