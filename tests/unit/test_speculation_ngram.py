"""Drafts from the text itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmrun.engine.speculation.ngram import LONGEST, NgramDrafter

texts = st.lists(st.integers(0, 3), min_size=1, max_size=60)


def draft(tokens: list[int], count: int = 4) -> tuple[int, ...]:
    return NgramDrafter().draft(tokens, count).tokens


def test_what_followed_the_last_tokens_before() -> None:
    assert draft([1, 2, 3, 4, 5, 9, 1, 2]) == (3, 4, 5, 9)


def test_the_longest_match_wins_over_a_later_one() -> None:
    assert draft([7, 1, 2, 3, 8, 2, 5, 7, 1, 2], 1) == (3,)


def test_of_matches_alike_the_latest() -> None:
    assert draft([1, 2, 5, 1, 2, 6, 1, 2], 1) == (6,)


def test_a_text_that_goes_round_is_drafted_round() -> None:
    assert draft([9, 1, 2, 3, 1, 2, 3], 8) == (1, 2, 3, 1, 2, 3, 1, 2)


def test_nothing_where_the_last_token_is_new() -> None:
    assert draft([1, 2, 3]) == ()


def slowly(tokens: list[int], count: int) -> tuple[int, ...]:
    """The same by trying every place."""
    best, length = -1, 0
    for place in range(len(tokens) - 1):
        same = 0
        while same < min(LONGEST, place + 1) and tokens[place - same] == tokens[len(tokens) - 1 - same]:
            same += 1
        if same and same >= length:
            best, length = place, same
    if not length:
        return ()
    text = list(tokens)
    for step in range(count):
        text.append(text[best + 1 + step])
    return tuple(text[len(tokens) :])


@given(texts, st.integers(1, 10), st.integers(0, 60))
def test_it_finds_what_a_search_of_all_places_finds(tokens: list[int], count: int, seen: int) -> None:
    """And it does not matter how often it was asked before."""
    drafter = NgramDrafter()
    if 0 < seen < len(tokens):
        drafter.draft(tokens[:seen], count)
    assert drafter.draft(tokens, count).tokens == slowly(tokens, count)


def test_each_token_is_read_once_however_often_it_is_asked() -> None:
    drafter, tokens = NgramDrafter(), Counted([1, 2, 3, 4] * 500)
    drafter.draft(tokens, 1)
    tokens.reads = 0
    for _ in range(100):
        tokens.append(5)
        drafter.draft(tokens, 1)
    assert tokens.reads < 50_000  # a scan of the text each time would read 200,000


class Counted(list[int]):
    """Counts what is read of it."""

    reads = 0

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        self.reads += 1
        return super().__getitem__(index)
