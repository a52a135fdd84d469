"""Whether a draft is to be a chain or a tree.

Within the time of one step of a tree, which reads several leaves, a chain goes nearly two steps. Where most first
guesses are right it comes further by that; where many are wrong, a tree does, in which others stand beside them.
"""

from __future__ import annotations

from collections.abc import Iterable

TREE_BELOW = 0.7
"""The share of first guesses that are right. With a step of a tree twice one of a chain, 0.3 of the places whose first
guess is wrong saved by another one, and passes of 16 steps of a chain, both give as many tokens a second at 0.7 (with
steps of 1.6 it would be at 0.8: a chain is the surer choice).
"""

EXPECTED = 0.8
"""At first: of copies in few bits."""

RATE = 0.05
"""What one guess counts: the latest twenty or so decide."""


class FirstGuesses:
    """How many were right lately.

    Attributes:
        share: of them.
    """

    def __init__(self, share: float = EXPECTED) -> None:
        self.share = share

    @property
    def want_tree(self) -> bool:
        """Whether a tree gives more."""
        return self.share < TREE_BELOW

    def learn(self, right: Iterable[bool]) -> None:
        """From the first guesses that were reached, one after the other."""
        for one in right:
            self.share += RATE * (one - self.share)
