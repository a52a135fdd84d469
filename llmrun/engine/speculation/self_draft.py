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

REACH = 0.05
"""A guess that is less likely than this to be right, with all before it, by the drafting model's own word, is not made.

That model is right more often than it says: it is asked for the likeliest token of another that is nearly the same.
"""


class SelfDrafter:
    """Guesses for one answer; nothing before a pass over a token has left the copies.

    Args:
        sampler: chooses the tokens of the answer.
        reach: as ``draft_chain`` has it, where the likeliest token is taken.
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

    def draft(self, tokens: Sequence[int], count: int) -> Draft:
        """At most ``count`` tokens after ``tokens``; fewer where the model in fewer bits is not sure of them.

        Raises:
            Interrupted: the run was cancelled.
        """
        if not self._residency.can_draft:
            return NOTHING
        with self._cache.drafting(), self._residency.drafting():
            return draft_chain(self._forward.decode, tokens, count, self._sampler, reach=self._reach)
