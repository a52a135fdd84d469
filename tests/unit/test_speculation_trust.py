"""What drafters say of their guesses is held against what came of them."""

import math
import random

import pytest

from llmrun.engine.speculation.costs import Prior
from llmrun.engine.speculation.shape import Shape
from llmrun.engine.speculation.trust import Trust
from llmrun.events import Speculated


@pytest.mark.parametrize("rate", [0.03, 0.3])
def test_the_chance_that_was_asked_for_is_the_one_that_comes(rate: float) -> None:
    source, trust, right = random.Random(5), Trust(), []
    for number in range(3000):
        limit = trust.most_doubt(0.5)
        doubts = [limit / 8] * 8
        wrong_at = source.expovariate(rate)
        accepted = min(8, int(wrong_at / doubts[0]))
        trust.learn(doubts, accepted)
        if number > 50:
            right.append(accepted == 8)
    assert sum(right) / len(right) == pytest.approx(0.5, abs=0.1)


def test_a_certain_chance_allows_no_doubt_and_a_small_one_much() -> None:
    trust = Trust()
    assert trust.most_doubt(1.0) == 0
    assert trust.most_doubt(0.01) == pytest.approx(2 * trust.most_doubt(0.1))


def test_only_guesses_that_were_reached_are_held_against_the_drafter() -> None:
    reached, all_of_it = Trust(), Trust()
    reached.learn([0.5, 0.5, 90.0], 1)
    all_of_it.learn([0.5, 0.5], 1)
    assert reached.most_doubt(0.5) == all_of_it.most_doubt(0.5)


def test_the_dearer_a_guess_the_surer_it_has_to_be() -> None:
    limits = []
    for draft_s in (0.02, 0.1, 0.3):
        shape = Shape(15, Prior(15, 0.8, draft_s))
        for accepted in (0, 8, 8, 8):
            drafted = 8 if accepted else 0
            shape.learn(Speculated(0.0, drafted, accepted, draft_s * drafted, 1.0), [0.2] * drafted)
        limits.append(shape.most_doubt())
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > limits[-1]
    assert all(math.isfinite(limit) for limit in limits)
