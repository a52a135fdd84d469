"""Drafts from the text itself: where its last tokens stood before, what came after them then may come again.

Prompt lookup (Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding), but for the latest of the longest
matches, where transformers' ``PromptLookupCandidateGenerator`` takes the first; and a match that overlaps the end is
read on into the draft, as Lempel and Ziv (1977) copy, so that a text that goes round in circles is drafted round.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from llmrun.engine.speculation.draft import NOTHING, Draft

LONGEST = 6
"""Tokens that a match is made of at the most; a longer one would not be better by much."""

MOST_VISITS = 256
"""Earlier places of the last token that are looked at, the latest first, so that a long text costs no more."""


class NgramDrafter:
    """Looks up the last tokens in all that came before.

    Memory: two numbers a token. Each token is linked to its place before, so nothing is scanned.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._latest: dict[int, int] = {}  # token -> its last place
        self._before: list[int] = []  # place -> the last place of the same token before it, or -1

    def draft(self, tokens: Sequence[int], count: int, most_doubt: float = math.inf) -> Draft:
        """What came after the longest earlier match of the last tokens; nothing where the last one is new."""
        for place in range(len(self._before), len(tokens)):
            self._before.append(self._latest.get(tokens[place], -1))
            self._latest[tokens[place]] = place
        best = self._best(tokens)
        if best is None:
            return NOTHING
        text = list(tokens[best + 1 : best + 1 + count])
        period = len(tokens) - 1 - best
        while len(text) < count:
            text.append(text[len(text) - period])
        return Draft(tuple(text))

    def _best(self, tokens: Sequence[int]) -> int | None:
        """The place of the last token of the best match."""
        best, length = None, 0
        for place in self._places():
            matched = self._matched(tokens, place)
            if matched > length:
                best, length = place, matched
            if length == self._longest:
                break
        return best

    def _places(self) -> Iterator[int]:
        place = self._before[-1]
        for _ in range(MOST_VISITS):
            if place < 0:
                return
            yield place
            place = self._before[place]

    def _matched(self, tokens: Sequence[int], place: int) -> int:
        """How many tokens up to ``place`` are as the last ones; the one there is."""
        end = len(tokens) - 1
        count = 1
        while count < min(self._longest, place + 1) and tokens[place - count] == tokens[end - count]:
            count += 1
        return count
