"""Drafts by the model itself, with what streams replaced by copies in fewer bits that are in RAM.

The draft goes on from the KV cache of the answer, so it needs neither a prefill nor a cache of its own; the pass that
verifies it writes over what it appended. Readers fill the ring for that pass meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmrun.engine.forward import Forward
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.chain import draft_chain
from llmrun.engine.speculation.draft import NOTHING, Draft
from llmrun.runtime.kv_cache import KVCache
from llmrun.runtime.residency import Residency


class SelfDrafter:
    """Guesses for one answer; nothing before a pass over a token has left the copies.

    Args:
        sampler: chooses the tokens of the answer.
    """

    def __init__(self, forward: Forward, residency: Residency, cache: KVCache, sampler: Sampler) -> None:
        self._forward = forward
        self._residency = residency
        self._cache = cache
        self._sampler = sampler

    def draft(self, tokens: Sequence[int], count: int, most_doubt: float = math.inf) -> Draft:
        """At most ``count`` tokens after ``tokens``; fewer where the model in fewer bits is not sure of them.

        Raises:
            Interrupted: the run was cancelled.
        """
        if not self._residency.can_draft:
            return NOTHING
        with self._cache.drafting(), self._residency.drafting():
            return draft_chain(self._forward.decode, tokens, count, self._sampler, most_doubt=most_doubt)
