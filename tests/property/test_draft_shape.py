"""How much is drafted: what it may cost at the worst, and what it comes to where drafts are right."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrun.engine.speculation.costs import Prior
from llmrun.engine.speculation.shape import CREDIT_TOKENS, LOSS_SHARE, MOST_WAIT, Shape
from llmrun.events import Speculated


@dataclass(frozen=True)
class Machine:
    """What things cost, in passes over one token: each drafted one, and each further one in a pass."""

    draft: float
    wider: float

    def seconds(self, drafted: int) -> tuple[float, float]:
        return self.draft * drafted, 1.0 + self.wider * drafted


machines = st.builds(Machine, st.floats(0, 0.5), st.floats(0, 1))
STREAMED, RESIDENT = Machine(0.03, 0.0), Machine(0.2, 0.7)


def run(shape: Shape, machine: Machine, tokens: int, accepted: Callable[[int], int]) -> tuple[float, list[int]]:
    """The seconds for an answer of so many tokens, and what was drafted in each of its passes."""
    shape.begin()
    made, seconds, lengths = 0, 0.0, []
    while made < tokens:
        length = shape.length()
        draft_s, pass_s = machine.seconds(length)
        right = min(length, accepted(length))
        shape.learn(Speculated(0.0, length, right, draft_s, pass_s))
        made, seconds = made + right + 1, seconds + draft_s + pass_s
        lengths.append(length)
    return seconds - (made - tokens), lengths  # as if the last pass had given no more than was wanted


def share_right(share: float, seed: int = 1) -> Callable[[int], int]:
    source = random.Random(seed)

    def accepted(length: int) -> int:
        count = 0
        while count < length and source.random() < share:
            count += 1
        return count

    return accepted


@settings(deadline=None, max_examples=150)
@given(machines, st.integers(1, 16), st.lists(st.integers(0, 16), max_size=60), st.integers(16, 300))
def test_it_never_costs_more_than_its_share(machine: Machine, most: int, right: list[int], tokens: int) -> None:
    """Whatever was right, even if all that was right is meant to make the wrong look good.

    What a first draft costs is known only afterwards: so much may be lost beyond the share.
    """
    outcomes: Iterator[int] = chain(right, repeat(0))
    seconds, _ = run(Shape(most), machine, tokens, lambda length: next(outcomes))
    unknown = 2 * (machine.draft + machine.wider)
    assert seconds <= (1 + LOSS_SHARE) * tokens + LOSS_SHARE * (CREDIT_TOKENS + most + 1) + unknown


@pytest.mark.parametrize("machine", [STREAMED, RESIDENT, Machine(0.5, 1.0)])
def test_text_that_nobody_can_guess_takes_no_longer(machine: Machine) -> None:
    shape = Shape(16)
    assert run(shape, machine, 128, share_right(1.0))[0] <= 1.03 * 128  # it comes from a text that was easy
    for _ in range(3):
        assert run(shape, machine, 128, share_right(0.0))[0] <= 1.03 * 128


def test_all_right_and_next_to_free_is_drafted_to_the_limit() -> None:
    seconds, lengths = run(Shape(16), STREAMED, 256, share_right(1.0))
    assert lengths[:5] == [0, 1, 1, 2, 4]  # each wider one once half of it is known
    assert max(lengths) == 16
    assert seconds < 256 / 6


@pytest.mark.parametrize(("share", "machine"), [(0.8, STREAMED), (0.9, RESIDENT), (0.6, Machine(0.05, 0.1))])
def test_it_comes_near_to_the_best_length(share: float, machine: Machine) -> None:
    def rate(length: int) -> float:
        return sum(share**i for i in range(length + 1)) / sum(machine.seconds(length))

    tokens = 3000
    seconds, _ = run(Shape(16), machine, tokens, share_right(share))
    assert tokens / seconds > 0.9 * max(rate(length) for length in range(17))


def test_drafts_that_do_not_pay_are_left_out_and_tried_now_and_then() -> None:
    _, lengths = run(Shape(16), Machine(0.3, 0.9), 1000, share_right(0.3))
    assert lengths.count(0) > 0.9 * len(lengths)
    assert sum(lengths[-4 * MOST_WAIT :]) > 0


def test_it_recovers_when_the_text_becomes_easy() -> None:
    shape = Shape(16)
    run(shape, Machine(0.05, 0.2), 300, share_right(0.0))
    _, lengths = run(shape, Machine(0.05, 0.2), 300, share_right(1.0))
    assert max(lengths) == 16
    assert len(lengths) < 60


def test_what_was_measured_in_a_slow_moment_is_corrected() -> None:
    """The first pass took four times as long; wider ones, which cannot be faster, show it."""
    shape = Shape(8)
    shape.learn(Speculated(0.0, 0, 0, 0.0, 4.0))
    seconds, lengths = run(shape, Machine(0.5, 0.9), 300, share_right(0.2))
    assert seconds <= 1.03 * 300 + 4
    assert lengths.count(0) > 0.8 * len(lengths)


def test_one_pass_that_something_held_up_does_not_end_it() -> None:
    shape = Shape(8)
    shape.learn(Speculated(0.0, 0, 0, 0.0, 1.0))
    shape.learn(Speculated(0.0, 1, 1, 0.0, 9.0))
    shape.learn(Speculated(0.0, 1, 1, 0.0, 5.0))
    _, lengths = run(shape, STREAMED, 100, share_right(0.9))
    assert len(lengths) < 40


def test_a_drafter_that_gives_nothing_costs_nothing() -> None:
    shape = Shape(4)
    for _ in range(50):
        shape.learn(Speculated(0.0, 0, 0, 1e-5, 1.0))
    assert shape.length() > 0


def test_what_is_expected_is_tried_at_once() -> None:
    _, lengths = run(Shape(16, Prior(8, 0.85, 0.03)), STREAMED, 60, share_right(0.85))
    assert lengths[:2] == [0, 8]
    assert len(lengths) < 20


@pytest.mark.parametrize("share", [0.5, 0.98])
def test_what_is_expected_and_does_not_come_costs_little(share: float) -> None:
    seconds, _ = run(Shape(16, Prior(8, share, 0.03)), STREAMED, 256, share_right(0.0))
    assert seconds <= 1.03 * 256


PLANNED = Prior(12, 0.95, 0.15, pass_s=2.0)
"""Twelve is the best length for it, and puts 1.8 passes at risk: more than the ledger has for a new answer."""


def test_where_the_plan_has_a_clear_gain_the_first_draft_is_as_long_as_planned() -> None:
    shape = Shape(16, PLANNED)
    _, lengths = run(shape, Machine(0.15, 0.0), 60, lambda length: length)
    assert lengths[0] == 12
    assert min(lengths) >= 12
    shape.begin()
    assert shape.length() >= 12  # and so does the next answer


def test_where_the_plan_has_none_it_begins_with_a_plain_pass() -> None:
    assert Shape(16, Prior(4, 0.3, 0.5, pass_s=2.0)).length() == 0


@pytest.mark.parametrize("machine", [STREAMED, Machine(0.15, 0.0), RESIDENT, Machine(0.5, 1.0)])
def test_what_was_planned_and_does_not_come_costs_little(machine: Machine) -> None:
    """The first draft is as long as planned, whatever the plan did not know; the ledger makes it good."""
    shape = Shape(16, PLANNED)
    first_s = sum(machine.seconds(12)) - 1
    assert run(shape, machine, 128, share_right(0.0))[0] <= max(1.03 * 128, 128 + first_s + 1.5)
    for _ in range(3):
        assert run(shape, machine, 128, share_right(0.0))[0] <= 1.03 * 128


def test_an_answer_too_short_for_the_prompt_to_be_read_again_is_made_without() -> None:
    def drafted(most_tokens: int, start_s: float) -> list[int]:
        shape, lengths = Shape(16, PLANNED), []
        shape.begin(most_tokens, start_s)
        made = 0
        while made < most_tokens:
            lengths.append(length := shape.length())
            draft_s, pass_s = Machine(0.15, 0.0).seconds(length)
            shape.learn(Speculated(0.0, length, length, 2 * draft_s, 2 * pass_s))
            made += length + 1
        return lengths

    assert drafted(100, 100.0)[0] == 12  # a plain pass takes 2 seconds, with drafts a token takes a third
    assert not any(drafted(60, 100.0))
    assert drafted(60, 50.0)[0] == 12
    long = drafted(2000, 500.0)  # longer than an answer whose end nobody knows: it will go on for as long again
    begins = next(place for place, length in enumerate(long) if length)
    assert 300 < begins < 400
    assert all(long[begins:])


def test_what_was_taken_to_be_too_dear_is_tried_where_little_is_at_stake() -> None:
    """The plan says that a guess takes seven tenths of a pass, and it is a twentieth."""
    for start_s, tried in ((0.2, True), (5.0, False)):
        shape, lengths = Shape(16, Prior(1, 0.5, 0.7, pass_s=1.0)), []
        shape.begin(24, start_s)
        for _ in range(12):
            lengths.append(length := shape.length())
            shape.learn(Speculated(0.0, length, length, 0.05 * length, 1.0))
        assert lengths[0] == 0
        assert bool(sum(lengths)) == tried
        assert max(lengths) >= (4 if tried else 0)


def test_guesses_that_are_not_given_are_counted() -> None:
    """A drafter that never dares to give one is not asked again and again."""
    for machine in (STREAMED, Machine(0.5, 0.1)):
        shape, seconds = Shape(16, Prior(12, 0.95, 0.01, pass_s=1.0)), 0.0
        for _ in range(128):
            guesses = min(1, shape.length())
            draft_s, _ = machine.seconds(guesses)
            shape.learn(Speculated(0.0, 0, 0, draft_s, 1.0), (), guesses)
            seconds += draft_s + 1.0
        assert seconds <= 1.03 * 128


def test_a_dear_second_token_does_not_end_drafts_at_once() -> None:
    """Where a pass over two takes nearly twice as long, and one over nine no longer than that."""
    shape = Shape(8)
    for drafted, pass_s in ((0, 1.0), (1, 1.9), (1, 1.9), (8, 2.0), (8, 2.0), (8, 2.0)):
        shape.learn(Speculated(0.0, drafted, drafted, 0.1 * drafted, pass_s), [0.1] * drafted)
    assert shape.length() == 8
    assert shape.most_doubt() > 1
