"""How many tokens to draft: as many as give the most tokens a second, by what was seen and measured so far.

With a_i the share of drafts whose i-th token was taken of those whose tokens before it were, a draft of k tokens gives

    E(k) = 1 + a_1 + a_1 a_2 + ... + a_1 ... a_k        (Leviathan et al. 2023, eq. 1, for a_i that are all the same)

tokens in D k + V(k + 1) seconds: D to draft a token, V(T) to verify T of them. The length with the greatest E(k) / time
is taken, where 0 is a pass without a draft. All three are of the latest passes.

What is risked is bounded, so that text nobody can guess costs next to nothing: a ledger of the answer holds the time
that its passes took against the same tokens one by one, and no length is taken that could bring the loss above
``LOSS_SHARE`` of the answer's time if nothing of it were accepted. Where not to draft seems best, a draft is tried now
and then, as far as the ledger allows: each time that it fails after twice as many passes.

A drafter that says how sure it is of its guesses ends a draft early: where another guess takes longer, with what it
adds to the pass, than a token takes on the whole, times the chance that all so far is right (``trust.py``).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median_low

from llmrun.engine.speculation.trust import Trust
from llmrun.events import Speculated

LOSS_SHARE = 0.02
CREDIT_TOKENS = 48
"""The answer is taken to be so much longer than it is: what may be risked before it is long."""

LATEST = 5
"""Of so many times the median counts, the lower of two: what is slow was held up, nothing is fast by chance."""

FORGET = 0.9
"""Of what was accepted is kept at the next draft: the latest ten or so count."""


LEAST_CHANCE = 0.01
"""That a guess counts has at least to be so likely, even if it costs nothing."""

MOST_WAIT = 32
"""Passes between two trials, at the most."""


Times = deque[float]


@dataclass(frozen=True)
class Prior:
    """What is expected before anything was seen.

    Attributes:
        length: of the first draft, at the most.
        share: of first tokens that are right; it weighs as much as one draft.
        draft_share: seconds to draft a token, as a share of those of a plain pass.
    """

    length: int = 1
    share: float = 0.5
    draft_share: float = 0.0


PRIOR = Prior()


class Costs:
    """Seconds that drafting and verifying took, and by these what they would take."""

    def __init__(self, draft_share: float) -> None:
        self._draft_share = draft_share
        self._draft_s: Times = deque(maxlen=LATEST)
        self._pass_s: dict[int, Times] = {}  # by the tokens of a pass
        self._drafted = False

    @property
    def known(self) -> bool:
        """Whether there was a pass at all."""
        return bool(self._pass_s)

    @property
    def widest(self) -> int:
        """Tokens of the widest pass so far."""
        return max(self._pass_s, default=0)

    def learn(self, drafted: int, draft_s: float, pass_s: float) -> None:
        """A pass over ``drafted + 1`` tokens; the first with a draft makes what later ones use, and says nothing."""
        if drafted and not self._drafted:
            self._drafted = True
            return
        if drafted:
            self._draft_s.append(draft_s / drafted)
        self._pass_s.setdefault(drafted + 1, deque(maxlen=LATEST)).append(pass_s)

    def seconds(self, most: int) -> list[float]:
        """To draft k tokens and to verify them, for k from 0 to ``most``; once there was a pass."""
        widths = sorted(self._pass_s)
        # A narrower pass never takes longer: what was measured long ago is corrected by wider ones.
        least = list(accumulate((median_low(self._pass_s[width]) for width in reversed(widths)), min))[::-1]
        draft_s = median_low(self._draft_s) if self._draft_s else self._draft_share * least[0]
        # Nor does one pass take longer than its tokens would one by one.
        return [draft_s * k + min(_on_line(widths, least, k + 1), (k + 1) * least[0]) for k in range(most + 1)]


class Acceptance:
    """How often the token at each place of a draft was taken, where those before it were."""

    def __init__(self, most: int, share: float) -> None:
        self._share = share
        self._taken = [0.0] * most
        self._seen = [0.0] * most

    def learn(self, drafted: int, accepted: int) -> None:
        """The first ``accepted`` of ``drafted`` tokens were taken."""
        reached = min(drafted, accepted + 1)
        self._taken = [FORGET * taken + (place < accepted) for place, taken in enumerate(self._taken)]
        self._seen = [FORGET * seen + (place < reached) for place, seen in enumerate(self._seen)]

    def expected_tokens(self) -> list[float]:
        """E(k) for k from 0 on. What few drafts came to lately is taken to be as good as the place before it."""
        expected, reach, share = [1.0], 1.0, self._share
        for taken, seen in zip(self._taken, self._seen, strict=True):
            share = (taken + share) / (seen + 1)
            reach *= share
            expected.append(expected[-1] + reach)
        return expected


class Shape:
    """Says how long the next draft is to be.

    Args:
        most: the longest draft.
        prior: what is expected of the first drafts.
        loss_share: so much of an answer's time may be lost.
    """

    def __init__(self, most: int, prior: Prior = PRIOR, loss_share: float = LOSS_SHARE) -> None:
        self._most = most
        self._loss_share = loss_share
        self._first = prior.length
        self._costs = Costs(prior.draft_share)
        self._acceptance = Acceptance(most, prior.share)
        self._trust = Trust()
        self._wait, self._idle = 1, 0
        self.begin()

    def begin(self) -> None:
        """Another answer, with a ledger of its own."""
        self._passes = [0] * (self._most + 1)  # by what they drafted
        self._tokens = 0

    def length(self) -> int:
        """Tokens to draft now, 0 to ``most``."""
        if not self._costs.known:
            return 0  # to know what is to be beaten
        seconds = self._costs.seconds(self._most)
        # A length is tried when half of it was, or at first: what a wide pass takes is known only once there was one.
        tried = min(self._most, max(self._first, 2 * (self._costs.widest - 1)))
        left_s = self._may_lose_s(seconds)
        allowed = [k for k in range(tried + 1) if k == 0 or seconds[k] - seconds[0] <= left_s]
        expected = self._acceptance.expected_tokens()
        best = max(allowed, key=lambda k: (expected[k] / seconds[k], -k))
        return 1 if best == 0 and 1 in allowed and self._idle >= self._wait else best

    def most_doubt(self) -> float:
        """Of a draft: behind it another guess costs more than it is likely to give."""
        if not self._costs.known:
            return math.inf
        seconds, expected = self._costs.seconds(self._most), self._acceptance.expected_tokens()
        token_s = min(each_s / tokens for each_s, tokens in zip(seconds, expected, strict=True))
        guess_s = seconds[1] - seconds[0]
        return self._trust.most_doubt(min(1.0, max(guess_s / token_s, LEAST_CHANCE)))

    def learn(self, done: Speculated, doubts: Sequence[float] = ()) -> None:
        """What came of it; a drafter may have given fewer tokens than it was asked for, or none."""
        self._costs.learn(done.drafted, done.draft_s, done.verify_s)
        self._passes[done.drafted] += 1
        self._tokens += done.accepted + 1
        if done.drafted:
            self._acceptance.learn(done.drafted, done.accepted)
            self._trust.learn(doubts, done.accepted)
            self._wait = 1 if done.accepted else min(MOST_WAIT, 2 * self._wait)
        self._idle = 0 if done.drafted else self._idle + 1

    def _may_lose_s(self, seconds: Sequence[float]) -> float:
        """What the ledger leaves to be risked, by what things cost as it is known now: so errors are made good."""
        took_s = sum(count * each_s for count, each_s in zip(self._passes, seconds, strict=True))
        return self._loss_share * (self._tokens + CREDIT_TOKENS) * seconds[0] - (took_s - self._tokens * seconds[0])


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
