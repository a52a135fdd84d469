"""Whether a draft is to be a chain or a tree: what gives more tokens a second.

A step of a tree reads several leaves and takes longer than one of a chain, and where a first guess is wrong another one
may be right. With a the share of first guesses that are right, and r that of the wrong ones beside which another is, n
places give

    E(n) = 1 + b + b^2 + ... + b^n        (Leviathan et al. 2023, eq. 1; b = a of a chain, a + (1 - a) r of a tree)

tokens in n steps and the pass that verifies them. Where that pass waits for the disk, steps are cheap beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EXPECTED = 0.8
"""First guesses that are right, at first: of copies in few bits."""

RESCUED = 0.5
"""Wrong ones beside which another is right, at first."""

RATE = 0.05
"""What one guess counts: the latest twenty or so decide."""

LEAVES_COST = 1.6
"""A step of a tree in steps of a chain, before it was measured."""


@dataclass(frozen=True)
class Seconds:
    """What a step of a chain takes, one of a tree, and the pass after them."""

    step_s: float
    leaves_s: float
    pass_s: float


class FirstGuesses:
    """How many were right lately.

    Attributes:
        share: of them.
        rescued: of those that were wrong, the share beside which another one was right.
    """

    def __init__(self, share: float = EXPECTED, rescued: float = RESCUED) -> None:
        self.share = share
        self.rescued = rescued

    def want_tree(self, places: int, seconds: Seconds) -> bool:
        """Whether a tree of up to so many places gives more than a chain."""
        in_tree = self.share + (1 - self.share) * self.rescued
        chain = _tokens_per_s(self.share, places, seconds.step_s, seconds.pass_s)
        return _tokens_per_s(in_tree, places, seconds.leaves_s, seconds.pass_s) > chain

    def learn(self, right: Iterable[bool]) -> None:
        """From the first guesses that were reached, one after the other."""
        for one in right:
            self.share += RATE * (one - self.share)

    def learn_rescued(self, rescued: Iterable[bool]) -> None:
        """From those that were wrong, in trees."""
        for one in rescued:
            self.rescued += RATE * (one - self.rescued)


def _tokens_per_s(share: float, places: int, step_s: float, pass_s: float) -> float:
    """Of the number of places that is best."""
    best, tokens, reach = 1 / pass_s, 1.0, 1.0
    for place in range(1, places + 1):
        reach *= share
        tokens += reach
        best = max(best, tokens / (pass_s + place * step_s))
    return best
