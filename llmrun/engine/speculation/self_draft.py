"""Drafts by the model itself, with what streams replaced by copies in fewer bits that are in RAM.

The draft goes on from the KV cache of the answer, so it needs neither a prefill nor a cache of its own; the pass that
verifies it writes over what it appended. Readers fill the ring for that pass meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmrun.engine.forward import Forward
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.chain import draft_chain
from llmrun.engine.speculation.draft import NOTHING, Draft
from llmrun.runtime.kv_cache import KVCache
from llmrun.runtime.residency import Residency

REACH = 0.01
"""A guess that is less likely than this to be right with all before it, by the drafting model's own word, is not made.

That model is right far more often than it says: it guesses another that is nearly the same.
"""

LESS, MORE = 0.5, 1.25
"""Times that limit after a draft that ended at it and was all right, or was not: it rests where one in four is."""

LEAST, MOST = 1e-6, 0.2


class SelfDrafter:
    """Guesses for one answer; nothing before a pass over a token has left the copies.

    Args:
        sampler: chooses the tokens of the answer.
        reach: where the likeliest token is taken, as ``draft_chain`` has it at first; 0: drafts never end early.
    """

    def __init__(
        self, forward: Forward, residency: Residency, cache: KVCache, sampler: Sampler, reach: float = REACH
    ) -> None:
        self._forward = forward
        self._residency = residency
        self._cache = cache
        self._sampler = sampler
        # What is drawn may be unlikely, and yet be drawn by both.
        self._reach = reach if sampler.greedy else 0.0
        self._ended: tuple[int, tuple[int, ...]] | None = None  # early: where the draft began, and its tokens

    def draft(self, tokens: Sequence[int], count: int) -> Draft:
        """At most ``count`` tokens after ``tokens``; fewer where the model in fewer bits is not sure of them.

        Raises:
            Interrupted: the run was cancelled.
        """
        if not self._residency.can_draft:
            return NOTHING
        self._learn(tokens)
        with self._cache.drafting(), self._residency.drafting():
            draft = draft_chain(self._forward.decode, tokens, count, self._sampler, reach=self._reach)
        self._ended = (len(tokens), draft.tokens) if len(draft.tokens) < count else None
        return draft

    def _learn(self, tokens: Sequence[int]) -> None:
        """From what came of a draft that ended early."""
        if self._ended:
            place, guesses = self._ended
            right = tuple(tokens[place : place + len(guesses)]) == guesses
            self._reach = min(MOST, max(LEAST, self._reach * (LESS if right else MORE)))
