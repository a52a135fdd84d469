"""What became of one request. Times are ``time.monotonic()`` in seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise

from llmrun.bench.serving.workload import Request


@dataclass(frozen=True)
class Answer:
    """A request that was answered to its end.

    Attributes:
        sent_s: when it was sent.
        token_times_s: when each piece of text came: a token, or a chunk of several. Never empty.
        end_s: when the last piece came, or the word that the answer ends.
        prompt_tokens: as the server counts them; ``None`` where it does not say.
        output_tokens: as the server counts them, else the pieces.
        counted_by: ``usage`` (the server said), ``chunks`` (the pieces were counted) or ``engine`` (llmrun's own).
        cached_tokens: those of the prompt that were in a cache; ``None`` where the server does not say.
    """

    sent_s: float
    token_times_s: tuple[float, ...]
    end_s: float
    prompt_tokens: int | None
    output_tokens: int
    counted_by: str
    cached_tokens: int | None = None

    @property
    def ttft_s(self) -> float:
        """Time to first token: sent to the first piece of text."""
        return self.token_times_s[0] - self.sent_s

    @property
    def e2el_s(self) -> float:
        """End-to-end latency: sent to the end of the answer."""
        return self.end_s - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first: (e2el - ttft) / (n - 1); ``None`` of one token."""
        return (self.e2el_s - self.ttft_s) / (self.output_tokens - 1) if self.output_tokens > 1 else None

    @property
    def itl_s(self) -> tuple[float, ...]:
        """Inter-token latencies: the gaps between two pieces of text."""
        return tuple(after - before for before, after in pairwise(self.token_times_s))


@dataclass(frozen=True)
class Failure:
    """A request that was not answered to its end; what came of it counts for nothing but this."""

    sent_s: float
    end_s: float
    reason: str


Outcome = Answer | Failure


class RequestFailed(Exception):  # noqa: N818 - one request's end, told in the report and not to the user as an error
    """Why a request was not answered, in words that are the same for the same cause."""


Ask = Callable[[Request], Awaitable[Answer]]
"""Sends one request and waits for its answer. Raises ``RequestFailed``."""
