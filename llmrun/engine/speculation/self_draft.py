"""Drafts by the model itself, with what streams replaced by copies in fewer bits that are in RAM.

The draft goes on from the KV cache of the answer, so it needs neither a prefill nor a cache of its own; the pass that
verifies it writes over what it appended. Readers fill the ring for that pass meanwhile.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from statistics import median

import torch

from llmrun.engine.forward import Forward
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.chain import draft_chain
from llmrun.engine.speculation.draft import NOTHING, Draft
from llmrun.engine.speculation.form import FirstGuesses
from llmrun.engine.speculation.tree import LEAST, Sharpness, Tree, draft_tree
from llmrun.runtime.kv_cache import KVCache
from llmrun.runtime.residency import Residency

DEAR = 2.0
"""A pass over a few leaves of a tree may take so many times what one over a token takes: half as many passes are made.

Over a long text attention to it, which is not yet read once for all of them, may take more.
"""

LATEST = 5
"""Of so many times the median counts."""


class SelfDrafter:
    """Guesses for one answer; nothing before a pass over a token has left the copies.

    Args:
        sampler: chooses the tokens of the answer.
        tree_tokens: of a tree at the most; drafts may be trees where this is above 1, the cache branches and wide
            passes are not dear.
        first_guesses: says whether they are trees; learns from what came of all drafts.
        least: no token of a tree is right with less chance.
        sharpness: of the trees; learns from them.
    """

    def __init__(
        self,
        forward: Forward,
        residency: Residency,
        cache: KVCache,
        sampler: Sampler,
        *,
        tree_tokens: int = 0,
        sharpness: Sharpness | None = None,
        first_guesses: FirstGuesses | None = None,
        least: float = LEAST,
    ) -> None:
        self._forward = forward
        self._residency = residency
        self._cache = cache
        self._sampler = sampler
        self._tree_tokens = tree_tokens if cache.branches else 0
        self._sharpness = sharpness or Sharpness()
        self._first_guesses = first_guesses or FirstGuesses()
        self._least = least
        self._drafted: tuple[int, Tree | Draft] | None = None  # where, and what
        self._pass_s = {wide: deque[float](maxlen=LATEST) for wide in (False, True)}

    def draft(self, tokens: Sequence[int], count: int, most_doubt: float = math.inf) -> Draft:
        """At most ``count`` places after ``tokens``; fewer where the model in fewer bits is not sure of them.

        Raises:
            Interrupted: the run was cancelled.
        """
        if not self._residency.can_draft:
            return NOTHING
        self._learn(tokens)
        most = min(self._tree_tokens, self._cache.room_tokens - 1)
        with self._cache.drafting(), self._residency.drafting():
            if most > 1 and self._first_guesses.want_tree and not self._is_dear():
                return self._tree(tokens, count, most, math.exp(-most_doubt))
            draft = draft_chain(self._forward.decode, tokens, count, self._sampler, most_doubt=most_doubt)
        self._drafted = len(tokens), draft
        return draft

    def _learn(self, tokens: Sequence[int]) -> None:
        if not self._drafted:
            return
        place, last = self._drafted
        text = tokens[place:]
        if isinstance(last, Tree):
            told = last.told(text)
            self._sharpness.learn(told)
            self._first_guesses.learn(right for _, right in told)
        else:
            right = len(last.path(text))
            self._first_guesses.learn([True] * right + [False] * (right < min(len(last.tokens), len(text))))

    def _tree(self, tokens: Sequence[int], count: int, most: int, worth: float) -> Draft:
        sharpness = self._sharpness.value
        tree = draft_tree(self._read, tokens, count, most, self._sampler, sharpness, worth=worth, least=self._least)
        self._drafted = len(tokens), tree
        return tree.draft(most, self._least)

    def _read(self, tokens: Sequence[int], sees: torch.Tensor) -> torch.Tensor:
        began_s = time.monotonic()
        logits = self._forward.verify(tokens, sees)
        self._pass_s[len(tokens) > 1].append(time.monotonic() - began_s)
        return logits

    def _is_dear(self) -> bool:
        one, some = self._pass_s[False], self._pass_s[True]
        return len(one) == len(some) == LATEST and median(some) > DEAR * median(one)
