"""Drafts by the model itself, with what streams replaced by copies in fewer bits that are in RAM.

The draft goes on from the KV cache of the answer, so it needs neither a prefill nor a cache of its own; the pass that
verifies it writes over what it appended. Readers fill the ring for that pass meanwhile.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

import torch

from llmrun.engine.forward import Forward
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.chain import draft_chain
from llmrun.engine.speculation.draft import NOTHING, Draft
from llmrun.engine.speculation.form import LEAVES_COST, FirstGuesses, Seconds
from llmrun.engine.speculation.tree import LEAST, Sharpness, Tree, draft_tree
from llmrun.runtime.kv_cache import KVCache
from llmrun.runtime.residency import Residency

LATEST = 5
"""Of so many times the median counts."""


class SelfDrafter:
    """Guesses for one answer; nothing before a pass over a token has left the copies.

    Args:
        sampler: chooses the tokens of the answer.
        tree_tokens: of a tree at the most; drafts may be trees where this is above 1 and the cache branches.
        first_guesses: says whether they are trees; learns from what came of all drafts.
        expected_s: seconds of a guess and of a pass that verifies, as they are known from elsewhere; by default
            guesses cost nothing.
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
        expected_s: Callable[[], tuple[float, float]] = lambda: (0.0, 1.0),
        least: float = LEAST,
    ) -> None:
        self._forward = forward
        self._residency = residency
        self._cache = cache
        self._sampler = sampler
        self._tree_tokens = tree_tokens if cache.branches else 0
        self._sharpness = sharpness or Sharpness()
        self._first_guesses = first_guesses or FirstGuesses()
        self._expected_s = expected_s
        self._least = least
        self._drafted: tuple[int, Draft, Tree | None] | None = None  # where, and what
        self._step_s = {wide: deque[float](maxlen=LATEST) for wide in (False, True)}

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
            if most > 1 and self._first_guesses.want_tree(count, self._seconds()):
                draft, tree = self._tree(tokens, count, most, math.exp(-most_doubt))
            else:
                draft, tree = self._chain(tokens, count, most_doubt), None
        self._drafted = len(tokens), draft, tree
        return draft

    def _learn(self, tokens: Sequence[int]) -> None:
        if not self._drafted:
            return
        place, draft, tree = self._drafted
        text = tokens[place:]
        right = len(draft.path(text))
        if tree:
            told = tree.told(text)
            self._sharpness.learn(told)
            self._first_guesses.learn(first for _, first in told)
            self._first_guesses.learn_rescued(at < right for at, (_, first) in enumerate(told) if not first)
        else:
            self._first_guesses.learn([True] * right + [False] * (right < min(len(draft.tokens), len(text))))

    def _chain(self, tokens: Sequence[int], count: int, most_doubt: float) -> Draft:
        began_s = time.monotonic()
        draft = draft_chain(self._forward.decode, tokens, count, self._sampler, most_doubt=most_doubt)
        if draft.guesses:
            self._step_s[False].append((time.monotonic() - began_s) / draft.guesses)
        return draft

    def _tree(self, tokens: Sequence[int], count: int, most: int, worth: float) -> tuple[Draft, Tree]:
        sharpness = self._sharpness.value
        tree = draft_tree(self._read, tokens, count, most, self._sampler, sharpness, worth=worth, least=self._least)
        return tree.draft(most, self._least), tree

    def _read(self, tokens: Sequence[int], sees: torch.Tensor) -> torch.Tensor:
        began_s = time.monotonic()
        logits = self._forward.verify(tokens, sees)
        self._step_s[len(tokens) > 1].append(time.monotonic() - began_s)
        return logits

    def _seconds(self) -> Seconds:
        """As measured, of the latest steps; before these as expected."""
        guess_s, pass_s = self._expected_s()
        step_s = median(self._step_s[False]) if self._step_s[False] else guess_s
        leaves_s = median(self._step_s[True]) if self._step_s[True] else LEAVES_COST * step_s
        return Seconds(step_s, leaves_s, pass_s)
