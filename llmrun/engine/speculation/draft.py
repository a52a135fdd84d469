"""What a drafter is: it guesses the tokens that come next, and is believed only as far as the model agrees.

A draft is a chain today. A tree of tokens would be a ``Draft`` with the parent of each token beside it, verified by a
pass with a mask of ancestors; what drafts and what decides how much is drafted would not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from llmrun.engine.sampling import Sampler


@dataclass(frozen=True)
class Draft:
    """Tokens that may come next, one after the other.

    Attributes:
        tokens: ``k`` of them.
        probabilities: ``(k, V)`` in fp32 on the CPU, what each token was drawn from; ``None`` where a token counts if
            the model's own choice is the same: for guesses that were not drawn, or drawn with the model's own noise.
    """

    tokens: tuple[int, ...] = ()
    probabilities: torch.Tensor | None = None


NOTHING = Draft()


class Drafter(Protocol):
    """Guesses for one answer."""

    def draft(self, tokens: Sequence[int], count: int) -> Draft:
        """At most ``count`` tokens, which is 1 or more, that may follow ``tokens``: the prompt and the answer so far.

        From call to call ``tokens`` only grows. The KV cache, which lacks the last of them, is afterwards what it was.
        """
        ...


MakeDrafter = Callable[[Sampler], Drafter]
"""Makes the drafter of one answer, whose tokens that sampler chooses."""
