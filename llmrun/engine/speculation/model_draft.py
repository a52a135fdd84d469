"""Drafts by another model, small and all in RAM, with a KV cache of its own.

That is kept in step with the answer: what the two have in common stays, what the last draft guessed wrong goes, and
what is missing (the prompt at first, then what the large model said instead) is read in the pass for the first guess.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn.functional import pad

from llmrun.engine.loaded import LoadedModel
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.chain import draft_chain
from llmrun.engine.speculation.draft import NOTHING, Draft

AS_ONE = 4
"""Tokens that it may read before the first guess as if they were part of it; what it takes to read more is no guess's.
"""


class ModelDrafter:
    """Guesses for one answer; the model goes on from the last one, as far as the two begin alike.

    Args:
        model: drafts; its tokens are those of the model that answers, as far as it has them.
        vocab_size: how many logits that model gives.
        sampler: chooses the tokens of the answer.
    """

    def __init__(self, model: LoadedModel, vocab_size: int, sampler: Sampler) -> None:
        self._model = model
        self._vocab_size = vocab_size
        self._sampler = sampler

    def draft(self, tokens: Sequence[int], count: int, most_doubt: float = math.inf) -> Draft:
        """At most ``count`` tokens after ``tokens``; none where its context is full or a token is not one of its own.

        Raises:
            Interrupted: the run was cancelled.
            DeviceError: ``read-failed``, while its weights come in.
        """
        count = min(count, self._model.plan.workload.context_tokens - len(tokens) + 1)
        if count < 1 or max(tokens) >= self._model.spec.vocab_size:
            return NOTHING
        cache = self._model.cache
        missing = list(tokens[cache.reuse(tokens) : -1])
        reads = len(missing) > AS_ONE
        began_s, lead_s = time.monotonic(), 0.0

        def decode(token: int) -> torch.Tensor:
            nonlocal lead_s
            logits = self._decode(missing, token)
            if reads and not lead_s:
                lead_s = time.monotonic() - began_s
            cache.position.kept = len(tokens)  # the next draft may go back to here, wherever windows have moved
            return logits

        try:
            draft = draft_chain(decode, tokens, count, self._sampler, most_doubt=most_doubt)
        finally:
            cache.position.kept = None
        return replace(draft, guesses=(draft.guesses or 0) - reads, lead_s=lead_s)

    def _decode(self, missing: list[int], token: int) -> torch.Tensor:
        """As many logits after ``token`` as the model that answers gives; what is missing before it comes first."""
        forward = self._model.forward
        logits = forward.prefill([*missing, token]) if missing else forward.decode(token)
        missing.clear()
        # None of these tokens, where it has fewer; what the other does not have is never guessed.
        return pad(logits, (0, self._vocab_size - len(logits)), value=-torch.inf)
