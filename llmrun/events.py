"""The one stream that every view of a run is made from.

``Engine.generate`` yields these; ``metrics.apply`` folds them. ``at_s`` is ``time.monotonic()`` when it happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Accepted:
    """A request was accepted; ``reused_tokens`` of its prompt are in the KV cache already."""

    at_s: float
    prompt_tokens: int
    reused_tokens: int


@dataclass(frozen=True)
class Expected:
    """What the plan says of this request: once before its first token, again for what was in fact generated.

    ``read_bytes_per_token`` is by tier, ``peak_bytes`` by device.
    Where substitutes draft: ``tokens_per_pass``, and the ``plain_tpot_s`` of the best plan without drafts.
    """

    at_s: float
    ttft_s: float
    tpot_s: float
    read_bytes_per_token: Mapping[str, int]
    peak_bytes: Mapping[str, int]
    tokens_per_pass: float | None = None
    plain_tpot_s: float | None = None


@dataclass(frozen=True)
class PrefillProgress:
    """A unit of a prefill pass is done: ``done_units`` of ``total_units`` over all chunks of the prompt."""

    at_s: float
    done_units: int
    total_units: int
    prompt_tokens: int


@dataclass(frozen=True)
class LayerDone:
    """A unit has been computed."""

    at_s: float
    unit: str
    device: str


@dataclass(frozen=True)
class Stall:
    """The computation waited ``seconds`` for the weights of a unit."""

    at_s: float
    unit: str
    seconds: float


@dataclass(frozen=True)
class BytesRead:
    """``nbytes`` have come in from a tier (``disk``, or ``cpu`` for copies to a GPU) since the last such event."""

    at_s: float
    tier: str
    nbytes: int


@dataclass(frozen=True)
class RingSample:
    """The ring on a device: the ``slots`` it has, how many hold a whole unit, and the units on their way in.

    In a first pass resident units are on their way too; a device without a ring has no slots.
    """

    at_s: float
    device: str
    slots: int
    ready_slots: int
    in_flight: tuple[str, ...]


@dataclass(frozen=True)
class MemorySample:
    """Memory of the process on a device: now, at its peak, and what was promised."""

    at_s: float
    device: str
    used_bytes: int
    peak_bytes: int
    budget_bytes: int


@dataclass(frozen=True)
class Token:
    """A token was sampled; ``text`` is what it adds to the answer (often nothing for a part of a character)."""

    at_s: float
    token_id: int
    text: str


@dataclass(frozen=True)
class Speculated:
    """A pass with speculation is done: the first ``accepted`` of ``drafted`` tokens were right, and one more came.

    ``draft_s`` went into the draft, ``verify_s`` into the pass over it. A pass without a draft is told too.
    """

    at_s: float
    drafted: int
    accepted: int
    draft_s: float
    verify_s: float


class FinishReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"  # the model's end token, or a stop string
    LENGTH = "length"  # the asked number of tokens
    CONTEXT = "context"  # the context is full
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Finished:
    """The last event of a generation that did not fail; ``text`` is what was still held back."""

    at_s: float
    reason: FinishReason
    text: str = ""


Event = (
    Accepted
    | Expected
    | PrefillProgress
    | LayerDone
    | Stall
    | BytesRead
    | RingSample
    | MemorySample
    | Token
    | Speculated
    | Finished
)
