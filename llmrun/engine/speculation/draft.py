"""What a drafter is: it guesses the tokens that come next, and is believed only as far as the model agrees."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from llmrun.engine.sampling import Sampler


@dataclass(frozen=True)
class Draft:
    """Tokens that may come next: a chain, one after the other, or a tree, with several guesses for one place.

    Attributes:
        tokens: ``k`` of them, each after the one that it follows.
        probabilities: ``(k, V)`` in fp32 on the CPU, what each token was drawn from; ``None`` where a token counts if
            the model's own choice is the same: for guesses that were not drawn, or drawn with the model's own noise.
        parents: of a tree: for each token the index of the one that it follows, or -1, the last of the text; those that
            follow the same one differ. ``None``: a chain, where it is the one before.
        doubts: ``-ln`` of the probability that the drafter gives the likeliest token, for each place; none where it
            says nothing of that.
        guesses: that were made, also one that is not given since it is in doubt; ``None``: one for each place.
        lead_s: what went before them, in this draft: the drafter read the text.
    """

    tokens: tuple[int, ...] = ()
    probabilities: torch.Tensor | None = None
    parents: tuple[int, ...] | None = None
    doubts: tuple[float, ...] = ()
    guesses: int | None = None
    lead_s: float = 0.0

    @property
    def depth(self) -> int:
        """Places after the text that are guessed at."""
        return len(self.tokens) if self.parents is None else int(self.sees.sum(-1).max()) - 1

    @cached_property
    def sees(self) -> torch.Tensor:
        """Whether each of the last token of the text and these attends to each of them: ``(k + 1, k + 1)``.

        That is to itself and to what it comes after (tree attention, Miao et al. 2023, arXiv 2305.09781).
        """
        sees = torch.eye(len(self.tokens) + 1, dtype=torch.bool)
        for row, parent in enumerate(self._parents(), 1):
            sees[row] |= sees[parent + 1]
        return sees

    def path(self, tokens: Sequence[int]) -> list[int]:
        """The indices of ``tokens``, which follow the text one after the other, as far as they were guessed."""
        path: list[int] = []
        for token in tokens:
            node = self.after(path[-1] if path else -1, token)
            if node is None:
                break
            path.append(node)
        return path

    def after(self, node: int, token: int) -> int | None:
        """The index of ``token`` right after the one at ``node`` (-1: after the text); ``None``: it was not guessed."""
        if self.parents is None:
            return node + 1 if self.tokens[node + 1 : node + 2] == (token,) else None
        guesses = enumerate(zip(self.parents, self.tokens, strict=True))
        return next((index for index, guess in guesses if guess == (node, token)), None)

    def _parents(self) -> Sequence[int]:
        return range(-1, len(self.tokens) - 1) if self.parents is None else self.parents


NOTHING = Draft()


class Drafter(Protocol):
    """Guesses for one answer."""

    def draft(self, tokens: Sequence[int], count: int, most_doubt: float = math.inf) -> Draft:
        """Guesses for at most ``count`` places, which is 1 or more, after ``tokens``: the prompt and the answer so far.

        Where it takes the likeliest tokens it stops before the sum of its doubts would be more than ``most_doubt``.
        From call to call ``tokens`` only grows. The KV cache, which lacks the last of them, is afterwards what it was.
        """
        ...


MakeDrafter = Callable[[Sampler], Drafter]
"""Makes the drafter of one answer, whose tokens that sampler chooses."""
