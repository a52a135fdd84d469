"""What a run measured so far, folded from its events: ``state = apply(state, event)``.

TTFT is request accepted to first token, TPOT is (t_last - t_first) / (n - 1), decode tok/s is 1 / TPOT. What was read
and waited for is split at the same two moments: *prefill* is accepted to first token, *decode* first to last token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from llmrun.events import (
    Accepted,
    BytesRead,
    Event,
    Expected,
    Finished,
    FinishReason,
    LayerDone,
    MemorySample,
    PrefillProgress,
    Stall,
    Token,
)


@dataclass(frozen=True)
class Mark:
    """The totals at a moment; the difference of two marks is a phase."""

    at_s: float
    read_bytes: Mapping[str, int] = field(default_factory=dict)  # by tier
    stall_s: float = 0.0


@dataclass(frozen=True)
class Phase:
    """What happened between two marks."""

    seconds: float
    read_bytes: Mapping[str, int]  # by tier
    stall_s: float

    @property
    def stall_share(self) -> float | None:
        """The share of the time in which the computation waited for weights, 0 to 1."""
        return self.stall_s / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True)
class MetricsState:
    """One generation as measured so far. A figure that cannot be known yet is ``None``."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    prefill_done_units: int = 0
    prefill_total_units: int = 0
    read_bytes: Mapping[str, int] = field(default_factory=dict)  # by tier, over the whole run
    stall_s: float = 0.0
    itl_max_s: float | None = None
    memory: Mapping[str, MemorySample] = field(default_factory=dict)  # the last sample of each device
    expected: Expected | None = None  # what was predicted of all this
    finish_reason: FinishReason | None = None
    accepted: Mark | None = None
    first_token: Mark | None = None
    last_token: Mark | None = None

    @property
    def prefill(self) -> Phase | None:
        """Request accepted to first token."""
        return _between(self.accepted, self.first_token)

    @property
    def decode(self) -> Phase | None:
        """First to last token; ``None`` before the second token."""
        return _between(self.first_token, self.last_token) if self.new_tokens > 1 else None

    @property
    def ttft_s(self) -> float | None:
        """Time to first token."""
        return self.prefill.seconds if self.prefill else None

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first."""
        return self.decode.seconds / (self.new_tokens - 1) if self.decode else None

    @property
    def decode_tokens_per_s(self) -> float | None:
        """1 / TPOT."""
        return 1 / self.tpot_s if self.tpot_s else None

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Tokens of the prompt that were not in the KV cache already, over TTFT."""
        return (self.prompt_tokens - self.reused_tokens) / self.ttft_s if self.ttft_s else None

    @property
    def read_bytes_per_token(self) -> Mapping[str, float] | None:
        """Bytes read for each token after the first, by tier."""
        if self.decode is None:
            return None
        return {tier: nbytes / (self.new_tokens - 1) for tier, nbytes in self.decode.read_bytes.items()}

    def prefill_left_s(self, now_s: float) -> float | None:
        """Estimate of the time to the first token: the units still to do at the pace of those done."""
        if self.accepted is None or not self.prefill_done_units:
            return None
        elapsed_s = now_s - self.accepted.at_s
        return elapsed_s * (self.prefill_total_units - self.prefill_done_units) / self.prefill_done_units


def apply(state: MetricsState, event: Event) -> MetricsState:
    """The state after ``event``; pure."""
    match event:
        case Accepted():
            return replace(
                state,
                prompt_tokens=event.prompt_tokens,
                reused_tokens=event.reused_tokens,
                accepted=_mark(state, event.at_s),
            )
        case Expected():
            return replace(state, expected=event)
        case PrefillProgress():
            return replace(state, prefill_done_units=event.done_units, prefill_total_units=event.total_units)
        case BytesRead():
            return replace(state, read_bytes=_add(state.read_bytes, event.tier, event.nbytes))
        case Stall():
            return replace(state, stall_s=state.stall_s + event.seconds)
        case MemorySample():
            return replace(state, memory={**state.memory, event.device: event})
        case Token():
            return _token(state, event.at_s)
        case Finished():
            return replace(state, finish_reason=event.reason)
        case LayerDone():
            return state


def _token(state: MetricsState, at_s: float) -> MetricsState:
    mark = _mark(state, at_s)
    itl_max_s = state.itl_max_s
    if state.last_token is not None:
        itl_max_s = max(itl_max_s or 0.0, at_s - state.last_token.at_s)
    return replace(
        state,
        new_tokens=state.new_tokens + 1,
        itl_max_s=itl_max_s,
        first_token=state.first_token or mark,
        last_token=mark,
    )


def _mark(state: MetricsState, at_s: float) -> Mark:
    return Mark(at_s, state.read_bytes, state.stall_s)


def _add(totals: Mapping[str, int], key: str, amount: int) -> Mapping[str, int]:
    return {**totals, key: totals.get(key, 0) + amount}


def _between(start: Mark | None, end: Mark | None) -> Phase | None:
    if start is None or end is None:
        return None
    read_bytes = {tier: nbytes - start.read_bytes.get(tier, 0) for tier, nbytes in end.read_bytes.items()}
    return Phase(end.at_s - start.at_s, read_bytes, end.stall_s - start.stall_s)
