"""How far a drafter's word is to be trusted: what it said of its guesses against what came of them.

A guess of probability p, by the drafter's own word, is taken to be right with probability p^g: a drafter that is
nearly the same model as the other is right far more often than it says. With -ln p the doubt of a guess, all of a draft
is right with exp(-g * the sum of its doubts): wrong guesses come as a Poisson process does, at the rate g in the doubt.
So g is estimated as such rates are, with a Gamma prior: wrong guesses over the doubt of all that were tried, of the
latest drafts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

PRIOR_WRONG, PRIOR_DOUBT = 0.25, 1.75
"""A quarter of a wrong guess in a doubt of 1.75: soon outdone by what is seen."""

FORGET = 0.9
"""Of what was seen is kept at the next draft: the latest ten or so count."""


class Trust:
    """Learns the rate g from drafts."""

    def __init__(self) -> None:
        self._wrong = self._doubt = 0.0

    def learn(self, doubts: Sequence[float], accepted: int) -> None:
        """The first ``accepted`` of the guesses with these doubts were right, the next one, if any, was wrong."""
        self._wrong = FORGET * self._wrong + (accepted < len(doubts))
        self._doubt = FORGET * self._doubt + sum(doubts[: accepted + 1])

    def most_doubt(self, chance: float) -> float:
        """The doubt of a draft all of which is right with that chance, which is above 0 and at most 1."""
        return -math.log(chance) * (self._doubt + PRIOR_DOUBT) / (self._wrong + PRIOR_WRONG)
