"""Trees where many first guesses are wrong and steps are cheap beside the pass, chains elsewhere."""

import pytest

from llmrun.engine.speculation.form import FirstGuesses, Seconds

STREAMED = Seconds(step_s=0.06, leaves_s=0.1, pass_s=2.8)
IN_RAM = Seconds(step_s=0.06, leaves_s=0.12, pass_s=0.2)


def test_where_the_pass_waits_for_the_disk_a_tree_at_first() -> None:
    assert FirstGuesses().want_tree(31, STREAMED)
    assert not FirstGuesses().want_tree(31, IN_RAM)


def test_what_came_of_the_latest_guesses_decides() -> None:
    guesses = FirstGuesses()
    guesses.learn([True] * 80)
    assert not guesses.want_tree(15, STREAMED)
    guesses.learn([False, True] * 40)
    assert guesses.want_tree(15, STREAMED)
    assert 0 < guesses.share < 1


def test_where_no_other_guess_helps_drafts_are_chains() -> None:
    guesses = FirstGuesses(0.7)
    assert guesses.want_tree(15, STREAMED)
    guesses.learn_rescued([False] * 80)
    assert guesses.rescued == pytest.approx(0.0, abs=0.01)
    assert not guesses.want_tree(15, STREAMED)
    guesses.learn_rescued([True] * 80)
    assert guesses.want_tree(15, STREAMED)


def test_where_steps_of_trees_are_dear_drafts_are_chains() -> None:
    assert not FirstGuesses(0.8).want_tree(15, Seconds(0.06, 0.5, 2.8))
