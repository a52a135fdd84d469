"""The figures of an answer as text: a table for ``--stats`` and ``/stats``, a line under an answer. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from llmrun.events import FinishReason
from llmrun.metrics import MetricsState, Phase, Speculation
from llmrun.units import format_bytes, format_rate, format_seconds, format_tokens_rate

UNKNOWN = "-"
ENDED = {
    FinishReason.LENGTH: "reached the token limit",
    FinishReason.CONTEXT: "the context is full",
    FinishReason.INTERRUPTED: "stopped",
}
MOST_PLACES = 8

Line = tuple[str, str, str, str]  # label, measured, predicted, detail


def stats_text(state: MetricsState) -> str:
    """Label, amount, what was predicted, detail; one figure a line, at most 80 columns, without a final newline."""
    rows = [_first_token(state), _prefill(state), _decode(state), *_speculation(state)]
    rows += [*_reads(state), _stalls(state), *_memory(state)]
    if state.expected:
        rows.insert(0, ("", "measured", "predicted", ""))
    label, measured, predicted = (max(len(row[column]) for row in rows) for column in range(3))
    gap = "  " if predicted else ""
    return "\n".join(
        f"{row[0]:<{label}}  {row[1]:>{measured}}  {row[2]:>{predicted}}{gap}{row[3]}".rstrip() for row in rows
    )


def status_text(state: MetricsState, width: int = 80) -> str:
    """The compact line under an answer, what matters least left out where there is no room for all of it.

    ``64 tokens  4.21 tok/s (4.5 predicted)  disk 1.8 GiB/s  RAM 95% of 2.5 GiB  first after 1.9 s``
    """
    parts = [_count(state.new_tokens, "token")]
    if state.decode_tokens_per_s:
        predicted = (
            f" ({format_tokens_rate(1 / state.expected.tpot_s).removesuffix(' tok/s')} predicted)"
            if state.expected
            else ""
        )
        parts.append(format_tokens_rate(state.decode_tokens_per_s) + predicted)
    ended = [ENDED[state.finish_reason]] if state.finish_reason in ENDED else []
    optional = list(_optional(state))
    while optional and len("  ".join([*parts, *optional, *ended])) > width:
        optional.pop()
    return "  ".join([*parts, *optional, *ended])


def _optional(state: MetricsState) -> Iterator[str]:
    if state.decode and (rate := _rate(state.decode, "disk")):
        yield f"disk {rate}"
    if ram := state.memory.get("cpu"):
        yield f"RAM {ram.peak_bytes / max(1, ram.budget_bytes):.0%} of {format_bytes(ram.budget_bytes)}"
    if state.ttft_s is not None:
        yield f"first after {format_seconds(state.ttft_s)}"


def _first_token(state: MetricsState) -> Line:
    detail = _count(state.prompt_tokens, "prompt token")
    if state.reused_tokens:
        detail += f", {state.reused_tokens:,} kept"
    predicted = format_seconds(state.expected.ttft_s) if state.expected else ""
    return "time to first token", _or_unknown(state.ttft_s, format_seconds), predicted, detail


def _prefill(state: MetricsState) -> Line:
    return "prefill", _or_unknown(state.prefill_tokens_per_s, format_tokens_rate), "", ""


def _decode(state: MetricsState) -> Line:
    detail = _count(state.new_tokens, "new token")
    if state.itl_max_s is not None:
        detail += f", slowest {format_seconds(state.itl_max_s)}"
    predicted = format_tokens_rate(1 / state.expected.tpot_s) if state.expected else ""
    return "decode", _or_unknown(state.decode_tokens_per_s, format_tokens_rate), predicted, detail


def _speculation(state: MetricsState) -> Iterator[Line]:
    """What drafts gave and took, where there are any."""
    done = state.speculation
    if done is None:
        return
    seconds = f"{format_seconds(done.draft_s)} drafting, {format_seconds(done.verify_s)} verifying"
    expected = state.expected
    predicted = f"{expected.tokens_per_pass:.2f}" if expected and expected.tokens_per_pass else ""
    yield "tokens a pass", f"{done.tokens_per_pass:.2f}", predicted, seconds
    if expected and expected.plain_tpot_s and state.tpot_s:
        plain = f"over {format_tokens_rate(1 / expected.plain_tpot_s)} without drafts"
        gained, promised = (f"x {expected.plain_tpot_s / tpot_s:.2f}" for tpot_s in (state.tpot_s, expected.tpot_s))
        yield "gained", gained, promised, plain
    if done.acceptance is not None:
        yield "drafts accepted", f"{done.acceptance:.0%}", "", acceptance_text(done, MOST_PLACES)


def acceptance_text(done: Speculation, most: int) -> str:
    """How many of the first, the second, ... token of a draft were right: ``by place 90 72 55 41 %``."""
    return f"by place {' '.join(f'{share * 100:.0f}' for share in done.acceptance_by_place[:most])} %"


def _reads(state: MetricsState) -> list[Line]:
    """One line a tier; a model that is resident reads nothing, which is worth a line too."""
    if state.decode is None or state.read_bytes_per_token is None:
        return [("read per token", UNKNOWN, "", "")]
    predicted = state.expected.read_bytes_per_token if state.expected else {}
    per_token: Mapping[str, float] = state.read_bytes_per_token or {"disk": 0.0}
    return [
        (
            f"read per token, {tier}",
            format_bytes(nbytes),
            format_bytes(predicted.get(tier, 0)) if state.expected else "",
            _rate(state.decode, tier),
        )
        for tier, nbytes in per_token.items()
    ]


def _rate(phase: Phase, tier: str) -> str:
    nbytes = phase.read_bytes.get(tier, 0)
    return format_rate(nbytes / phase.seconds) if nbytes and phase.seconds > 0 else ""


def _stalls(state: MetricsState) -> Line:
    return "waiting for weights", _share(state.decode), "", f"of decode, {_share(state.prefill)} of prefill"


def _memory(state: MetricsState) -> list[Line]:
    predicted = state.expected.peak_bytes if state.expected else {}
    return [
        (
            f"peak memory {device}",
            format_bytes(sample.peak_bytes),
            format_bytes(predicted[device]) if device in predicted else "",
            f"of {format_bytes(sample.budget_bytes)} allowed",
        )
        for device, sample in state.memory.items()
    ]


def _share(phase: Phase | None) -> str:
    share = phase.stall_share if phase else None
    return UNKNOWN if share is None else f"{share:.0%}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _or_unknown(value: float | None, form: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else form(value)
