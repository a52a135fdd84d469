"""The tokens of an answer, of which one pass over the model may give several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from llmrun.engine.forward import Forward
from llmrun.engine.request import Chooser
from llmrun.engine.speculation.accept import accept
from llmrun.engine.speculation.draft import NOTHING, Drafter
from llmrun.engine.speculation.shape import Shape
from llmrun.events import Speculated
from llmrun.runtime.kv_cache import KVCache


class Speculation:
    """Drafts and passes in turn.

    Args:
        shape: how much is drafted; it remembers from answer to answer how fast this model is.
        emit: is told of each pass.

    Attributes:
        right: guesses that were right so far.
        tried: these, and for each draft the one that was wrong or that the drafter did not dare to make.
    """

    def __init__(self, forward: Forward, cache: KVCache, shape: Shape, emit: Callable[[Speculated], None]) -> None:
        self._forward = forward
        self._cache = cache
        self._shape = shape
        self._emit = emit
        self.right = self.tried = 0

    def tokens(
        self, logits: torch.Tensor, chooser: Chooser, drafter: Drafter, most_tokens: int, start_s: float = 0.0
    ) -> Iterator[int]:
        """Token after token, from the ``logits`` (V,) after the prompt on.

        The cache may hold tokens that have not been asked for yet: all of their pass.

        Args:
            most_tokens: no more are wanted, or there is no room for more.
            start_s: what the first guess takes beside what a guess takes.

        Raises:
            LlmrunError: what a pass raises.
        """
        self._shape.begin(most_tokens, start_s)
        chosen = [chooser.next(logits, self._cache.tokens)]
        made = 0
        while True:
            yield from chosen
            made += len(chosen)
            chosen = self._pass([*self._cache.tokens, chosen[-1]], chooser, drafter, most_tokens - made - 1)

    def _pass(self, past: Sequence[int], chooser: Chooser, drafter: Drafter, most_drafted: int) -> list[int]:
        """The tokens after ``past``, the last of which is not in the cache yet."""
        began_s = time.monotonic()
        length = min(self._shape.length(), most_drafted)
        draft = drafter.draft(past, length, self._shape.most_doubt()) if length > 0 else NOTHING
        drafted_s = time.monotonic()
        logits = self._forward.verify([past[-1], *draft.tokens], None if draft.parents is None else draft.sees)
        chosen = accept(draft, logits, past, chooser)
        right = draft.path(chosen[:-1])
        self._cache.keep(len(past), right)
        done_s = time.monotonic()
        pass_ = Speculated(done_s, draft.depth, len(right), drafted_s - began_s, done_s - drafted_s)
        if draft.tokens:
            self.right += pass_.accepted
            self.tried += pass_.accepted + (pass_.accepted < length)
        self._shape.learn(replace(pass_, draft_s=pass_.draft_s - draft.lead_s), draft.doubts, draft.guesses)
        self._emit(pass_)
        return chosen


def plain_tokens(forward: Forward, cache: KVCache, logits: torch.Tensor, chooser: Chooser) -> Iterator[int]:
    """Token after token, one from each pass, from the ``logits`` (V,) after the prompt on.

    Raises:
        LlmrunError: what a pass raises.
    """
    while True:
        token = chooser.next(logits, cache.tokens)
        yield token
        logits = forward.decode(token)
