"""What a run measured so far, folded from its events: ``state = apply(state, event)``.

TTFT is request accepted to first token, TPOT is (t_last - t_first) / (n - 1), decode tok/s is 1 / TPOT. What was read
and waited for is split at the same two moments: *prefill* is accepted to first token, *decode* first to last token.

What happens *now* is told by marks: totals at moments a quarter of a second apart for what is read, and at tokens half
a second apart or more for the speed. An event costs microseconds, whatever is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

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
    RingSample,
    Speculated,
    Stall,
    Token,
)

MARK_S = 0.25
RECENT_MARKS = 9  # two seconds, or longer where events are rarer
PACE_S = 0.5
PACE_MARKS = 200
LATE_S = 1.0
"""Without an event for so long, a rate begins to fall."""


@dataclass(frozen=True)
class Mark:
    """The totals at a moment; the difference of two marks is a phase."""

    at_s: float
    read_bytes: Mapping[str, int] = field(default_factory=dict)  # by tier
    stall_s: float = 0.0
    new_tokens: int = 0


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
class Speculation:
    """What speculation did so far.

    Attributes:
        passes: over the model, for a token and what was drafted after it.
        drafted: by place in the draft, how many tokens; ``accepted`` of them were right, and all before them.
        draft_s: drafting, ``verify_s`` the passes.
    """

    passes: int = 0
    drafted: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()
    draft_s: float = 0.0
    verify_s: float = 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Each pass gives one token, and those of the draft that were right."""
        return 1 + sum(self.accepted) / self.passes if self.passes else 1.0

    @property
    def acceptance(self) -> float | None:
        """The share of the drafted tokens that were right; ``None`` where none were drafted."""
        return sum(self.accepted) / sum(self.drafted) if self.drafted else None

    @property
    def acceptance_by_place(self) -> tuple[float, ...]:
        """The same for each place in the draft."""
        return tuple(right / all_ for right, all_ in zip(self.accepted, self.drafted, strict=True))

    def after(self, done: Speculated) -> Speculation:
        """With one more pass."""
        return Speculation(
            self.passes + 1,
            _longer(self.drafted, done.drafted, len(self.drafted)),
            _longer(self.accepted, done.accepted, max(len(self.drafted), done.drafted)),
            self.draft_s + done.draft_s,
            self.verify_s + done.verify_s,
        )


def _longer(counts: tuple[int, ...], places: int, length: int) -> tuple[int, ...]:
    """One more in each of the first places, of ``length`` or more."""
    known = (*counts, *[0] * (max(places, length) - len(counts)))
    return tuple(count + (place < places) for place, count in enumerate(known))


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
    rings: Mapping[str, RingSample] = field(default_factory=dict)  # likewise
    unit_done: str | None = None  # the last one that was computed
    expected: Expected | None = None  # what was predicted of all this
    finish_reason: FinishReason | None = None
    speculation: Speculation | None = None  # where tokens are drafted
    accepted: Mark | None = None
    first_token: Mark | None = None
    last_token: Mark | None = None
    recent: tuple[Mark, ...] = ()
    pace: tuple[Mark, ...] = ()  # at tokens

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

    def stall_share(self, now_s: float) -> float | None:
        """The share of decode in which the computation waited for weights; of prefill, before the second token."""
        if self.decode:
            return self.decode.stall_share
        if self.accepted is None:
            return None
        until_s = self.first_token.at_s if self.first_token else now_s
        return self.stall_s / (until_s - self.accepted.at_s) if until_s > self.accepted.at_s else None

    def read_bytes_per_s(self, tier: str, now_s: float) -> float:
        """What comes in from a tier now: over the last two seconds, or over the last two reports if they are rarer."""
        if len(self.recent) < 2:
            return 0.0
        first, last = self.recent[0], self.recent[-1]
        nbytes = last.read_bytes.get(tier, 0) - first.read_bytes.get(tier, 0)
        return nbytes / (max(last.at_s, now_s - LATE_S) - first.at_s)

    def pace_tokens_per_s(self) -> tuple[float, ...]:
        """The decode rate through the run, each over half a second or one token."""
        return tuple(
            (after.new_tokens - before.new_tokens) / (after.at_s - before.at_s) for before, after in pairwise(self.pace)
        )

    def tokens_per_s(self, now_s: float) -> float | None:
        """The decode rate now; it falls while a token is long in coming."""
        if len(self.pace) < 2 or self.last_token is None:
            return self.decode_tokens_per_s
        before, after = self.pace[-2:]
        rate = (after.new_tokens - before.new_tokens) / (after.at_s - before.at_s)
        waited_s = 0.0 if self.finish_reason else now_s - self.last_token.at_s
        at_once = self.speculation.tokens_per_pass if self.speculation else 1.0
        return min(rate, at_once / waited_s) if waited_s > max(LATE_S, 2 * at_once / rate) else rate


def apply(state: MetricsState, event: Event) -> MetricsState:
    """The state after ``event``; pure."""
    state = _apply(state, event)
    if not state.recent or event.at_s - state.recent[-1].at_s >= MARK_S:
        state = _with(state, recent=(*state.recent[1 - RECENT_MARKS :], _mark(state, event.at_s)))
    return state


def _apply(state: MetricsState, event: Event) -> MetricsState:
    match event:
        case LayerDone():
            return _with(state, unit_done=event.unit)
        case Accepted():
            return _with(
                state,
                prompt_tokens=event.prompt_tokens,
                reused_tokens=event.reused_tokens,
                accepted=_mark(state, event.at_s),
            )
        case Expected():
            return _with(state, expected=event)
        case PrefillProgress():
            return _with(state, prefill_done_units=event.done_units, prefill_total_units=event.total_units)
        case BytesRead():
            read_bytes = _add(state.read_bytes, event.tier, event.nbytes)
            if event.tier not in state.read_bytes:  # it came in before anybody looked, who knows how fast
                return _with(state, read_bytes=read_bytes, recent=())
            return _with(state, read_bytes=read_bytes)
        case RingSample():
            return _with(state, rings={**state.rings, event.device: event})
        case Stall():
            return _with(state, stall_s=state.stall_s + event.seconds)
        case MemorySample():
            return _with(state, memory={**state.memory, event.device: event})
        case Speculated():
            return _with(state, speculation=(state.speculation or Speculation()).after(event))
        case Token():
            return _token(state, event.at_s)
        case Finished():
            return _with(state, finish_reason=event.reason)


def _token(state: MetricsState, at_s: float) -> MetricsState:
    state = _with(state, new_tokens=state.new_tokens + 1)
    mark = _mark(state, at_s)
    itl_max_s, pace = state.itl_max_s, state.pace
    if state.last_token is not None:
        itl_max_s = max(itl_max_s or 0.0, at_s - state.last_token.at_s)
    if not pace or at_s - pace[-1].at_s >= PACE_S:
        pace = (*pace[1 - PACE_MARKS :], mark)
    return _with(
        state,
        itl_max_s=itl_max_s,
        pace=pace,
        first_token=state.first_token or mark,
        last_token=mark,
    )


def _mark(state: MetricsState, at_s: float) -> Mark:
    return Mark(at_s, state.read_bytes, state.stall_s, state.new_tokens)


def _with(state: MetricsState, **changes: Any) -> MetricsState:  # noqa: ANN401 - of any field
    """``dataclasses.replace`` in a tenth of its time: a run makes thousands of events a second."""
    changed = object.__new__(MetricsState)
    changed.__dict__.update(state.__dict__)
    changed.__dict__.update(changes)
    return changed


def _add(totals: Mapping[str, int], key: str, amount: int) -> Mapping[str, int]:
    return {**totals, key: totals.get(key, 0) + amount}


def _between(start: Mark | None, end: Mark | None) -> Phase | None:
    if start is None or end is None:
        return None
    read_bytes = {tier: nbytes - start.read_bytes.get(tier, 0) for tier, nbytes in end.read_bytes.items()}
    return Phase(end.at_s - start.at_s, read_bytes, end.stall_s - start.stall_s)
