"""What drafting and verifying takes: by the latest passes, and before these by what the plan expects."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median_low

LATEST = 5
"""Of so many times the median counts, the lower of two: what is slow was held up, nothing is fast by chance."""

Times = deque[float]


@dataclass(frozen=True)
class Prior:
    """What is expected before anything was seen.

    Attributes:
        length: of the first draft, at the most.
        share: of first tokens that are right; it weighs as much as one draft.
        draft_share: seconds to draft a token, as a share of those of a plain pass.
        pass_s: of a plain pass; 0: not known, so that one has to be made before there are drafts.
        wide_share: what a pass over such a draft takes, in plain passes.
    """

    length: int = 1
    share: float = 0.5
    draft_share: float = 0.0
    pass_s: float = 0.0
    wide_share: float = 1.0


PRIOR = Prior()


class Costs:
    """Seconds that drafting and verifying took, and by these what they would take."""

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self._guess_s: Times = deque(maxlen=LATEST)
        self._pass_s: dict[int, Times] = {}  # by the tokens of a pass
        self._drafted = False

    @property
    def known(self) -> bool:
        """Whether there was a pass at all, or is an idea of it."""
        return bool(self._pass_s) or self._prior.pass_s > 0

    @property
    def widest(self) -> int:
        """Tokens of the widest pass so far."""
        return max(self._pass_s, default=0)

    def learn(self, drafted: int, guesses: int, draft_s: float, pass_s: float) -> None:
        """A pass over ``drafted + 1`` tokens; the first with a draft makes what later ones use, and says nothing.

        Args:
            guesses: that the drafter made, also those that it did not dare to give.
        """
        first = guesses > 0 and not self._drafted
        self._drafted = self._drafted or guesses > 0
        if guesses and not first:
            self._guess_s.append(draft_s / guesses)
        if not (first and drafted):
            self._pass_s.setdefault(drafted + 1, deque(maxlen=LATEST)).append(pass_s)

    @property
    def guess_s(self) -> float:
        """To draft a token; once ``known``."""
        return median_low(self._guess_s) if self._guess_s else self._prior.draft_share * self._passes()[1][0]

    @property
    def wide_s(self) -> float:
        """The widest pass so far; once ``known``."""
        return self._passes()[1][-1]

    def seconds(self, most: int) -> list[float]:
        """To draft k tokens and to verify them, for k from 0 to ``most``; once ``known``."""
        widths, least = self._passes()
        # Nor does one pass take longer than its tokens would one by one.
        verify_s = (min(_on_line(widths, least, k + 1), (k + 1) * least[0]) for k in range(most + 1))
        return [self.guess_s * k + each_s for k, each_s in enumerate(verify_s)]

    def _passes(self) -> tuple[list[int], list[float]]:
        """Widths, from 1 on, and what passes over so many tokens take."""
        widths = sorted(self._pass_s)
        # A narrower pass never takes longer: what was measured long ago is corrected by wider ones.
        least = list(accumulate((median_low(self._pass_s[width]) for width in reversed(widths)), min))[::-1]
        prior = self._prior
        if not widths:
            return [1, prior.length + 1], [prior.pass_s, prior.pass_s * prior.wide_share]
        if widths[0] > 1:  # drafts came first
            wider = 1 + (prior.wide_share - 1) * (widths[0] - 1) / prior.length
            return [1, *widths], [least[0] / wider, *least]
        return widths, least


def _on_line(widths: Sequence[int], seconds: Sequence[float], width: int) -> float:
    """Between two widths that were measured in a line; beyond the widest as steep as on the way there."""
    if width <= widths[0] or len(widths) == 1:
        return seconds[0]
    if width > widths[-1]:
        steepness = (seconds[-1] - seconds[0]) / (widths[-1] - widths[0])
        return seconds[-1] + steepness * (width - widths[-1])
    right = bisect_left(widths, width)
    left = right - 1
    share = (width - widths[left]) / (widths[right] - widths[left])
    return seconds[left] + share * (seconds[right] - seconds[left])
