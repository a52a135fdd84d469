"""How many tokens to draft: as many as give the most tokens a second, by what was seen and measured so far.

With a_i the share of drafts whose i-th token was taken of those whose tokens before it were, a draft of k tokens gives

    E(k) = 1 + a_1 + a_1 a_2 + ... + a_1 ... a_k        (Leviathan et al. 2023, eq. 1, for a_i that are all the same)

tokens in D k + V(k + 1) seconds: D to draft a token, V(T) to verify T of them. The length with the greatest E(k) / time
is taken, where 0 is a pass without a draft. All three are of the latest passes.

What is risked is bounded, so that text nobody can guess costs next to nothing: a ledger of the answer holds the time
that its passes took against the same tokens one by one, and no length is taken that could bring the loss above
``LOSS_SHARE`` of the answer's time if nothing of it were accepted. Where not to draft seems best, a draft is tried now
and then, as far as the ledger allows: each time that it fails after twice as many passes. Where a clear gain is
expected the first draft of an answer may be longer than that; the ledger takes note of what comes of it.

Before the first guess of an answer a small model has to come in and to read the prompt. That is no draft's cost; it is
weighed once, against what drafts are likely to gain in all that still comes: a short answer may be made without.

A drafter that says how sure it is of its guesses ends a draft early: where another guess takes longer, with what it
adds to the pass, than a token takes on the whole, times the chance that all so far is right (``trust.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from llmrun.engine.speculation.costs import PRIOR, Costs, Prior
from llmrun.engine.speculation.trust import Trust
from llmrun.events import Speculated

LOSS_SHARE = 0.02
CREDIT_TOKENS = 48
"""The answer is taken to be so much longer than it is: what may be risked before it is long."""

FORGET = 0.9
"""Of what was accepted is kept at the next draft: the latest ten or so count."""

LEAST_CHANCE = 0.01
"""That a guess counts has at least to be so likely, even if it costs nothing."""

CLEAR = 0.1
"""A gain of so much, as a share of the time, is a clear one."""

BEGIN_PASSES = 2.0
"""So many plain passes may be risked by the first draft of an answer, where the gain is clear."""

LIKELY_TOKENS = 256
"""Of an answer whose end nobody knows."""

MOST_WAIT = 32
"""Passes between two trials, at the most."""


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
        self._first = min(most, prior.length)
        self._costs = Costs(prior)
        self._acceptance = Acceptance(most, prior.share)
        self._trust = Trust()
        self._wait, self._idle = 1, 0
        self._expects = prior.pass_s > 0  # until there was a draft
        self.begin()

    def begin(self, most_tokens: int = LIKELY_TOKENS, start_s: float = 0.0) -> None:
        """Another answer, with a ledger of its own.

        Args:
            most_tokens: it has no more.
            start_s: what its first guess takes beside what a guess takes: a small model comes in, and reads the prompt.
        """
        self._most_tokens, self._start_s = most_tokens, start_s
        self._passes = [0] * (self._most + 1)  # by what they drafted
        self._guesses = 0
        self._tokens = 0

    def length(self) -> int:
        """Tokens to draft now, 0 to ``most``."""
        if not self._costs.known:
            return 0  # to know what is to be beaten
        seconds, expected = self._costs.seconds(self._most), self._acceptance.expected_tokens()
        # A length is tried when half of it was, or at first: what a wide pass takes is known only once there was one.
        tried = min(self._most, max(self._first, 2 * (self._costs.widest - 1)))

        def best_of(lengths: Iterable[int]) -> int:
            return max(lengths, key=lambda k: (expected[k] / seconds[k], -k))

        hoped = best_of(range(tried + 1))
        token_s = seconds[hoped] / expected[hoped]
        if self._start_s and (seconds[0] - token_s) * self._likely_tokens() <= self._start_s:
            # What is expected may be wrong: where the ledger bears it, a trial shows.
            trial_s = self._start_s + seconds[1] - seconds[0]
            return int(self._idle >= self._wait and trial_s <= self._may_lose_s(seconds, clear=False))
        left_s = self._may_lose_s(seconds, clear=token_s < (1 - CLEAR) * seconds[0])
        allowed = [k for k in range(tried + 1) if k == 0 or seconds[k] - seconds[0] <= left_s]
        best = best_of(allowed)
        return 1 if best == 0 and 1 in allowed and self._idle >= self._wait else best

    def expected_s(self) -> tuple[float, float]:
        """Seconds of a guess and of a pass over a draft, once one of either is known or expected."""
        return self._costs.guess_s, self._costs.wide_s

    def most_doubt(self) -> float:
        """Of a draft: behind it another guess costs more than it is likely to give; of one that is a trial, any."""
        if not self._costs.known:
            return math.inf
        seconds, expected = self._costs.seconds(self._most), self._acceptance.expected_tokens()
        best = min(range(self._most + 1), key=lambda k: (seconds[k] / expected[k], k))
        if best == 0:
            return math.inf
        # Of such a draft on the whole: what a pass over two tokens takes says little of wider ones.
        guess_s = (seconds[best] - seconds[0]) / best
        return self._trust.most_doubt(min(1.0, max(guess_s * expected[best] / seconds[best], LEAST_CHANCE)))

    def learn(self, done: Speculated, doubts: Sequence[float] = (), guesses: int | None = None) -> None:
        """What came of it; a drafter may have given fewer tokens than it was asked for, or none.

        Args:
            guesses: that it made in that time, also those that it did not dare to give; ``None``: what it gave.
        """
        guesses = done.drafted if guesses is None else guesses
        self._costs.learn(done.drafted, guesses, done.draft_s, done.verify_s)
        self._passes[done.drafted] += 1
        self._guesses += guesses
        self._tokens += done.accepted + 1
        if guesses or done.drafted:
            self._expects, self._start_s = False, 0.0
        if done.drafted:
            self._acceptance.learn(done.drafted, done.accepted)
            self._trust.learn(doubts, done.accepted)
            self._wait = 1 if done.accepted else min(MOST_WAIT, 2 * self._wait)
        self._idle = 0 if done.drafted else self._idle + 1

    def _may_lose_s(self, seconds: Sequence[float], *, clear: bool) -> float:
        """What the ledger leaves to be risked, by what things cost as it is known now: so errors are made good.

        Where the gain is ``clear`` an answer may begin with a long draft; the very first is as long as was expected.
        """
        if clear and self._expects:
            return math.inf
        drafting_s = self._guesses * self._costs.guess_s
        passes = enumerate(zip(self._passes, seconds, strict=True))
        passes_s = sum(count * (each_s - k * self._costs.guess_s) for k, (count, each_s) in passes)
        lost_s = drafting_s + passes_s - self._tokens * seconds[0]
        left_s = self._loss_share * (self._tokens + CREDIT_TOKENS) * seconds[0] - lost_s
        return max(left_s, BEGIN_PASSES * seconds[0]) if clear and not self._guesses else left_s

    def _likely_tokens(self) -> int:
        """How many still come, at a guess: what was long goes on for long."""
        return min(self._most_tokens - self._tokens, max(LIKELY_TOKENS - self._tokens, self._tokens))
