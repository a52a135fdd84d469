"""Chains where most first guesses are right, trees where many are wrong."""

from llmrun.engine.speculation.form import FirstGuesses


def test_a_chain_at_first() -> None:
    assert not FirstGuesses().want_tree


def test_what_came_of_the_latest_guesses_decides() -> None:
    guesses = FirstGuesses()
    guesses.learn([False, True] * 40)
    assert guesses.want_tree
    guesses.learn([True] * 40)
    assert not guesses.want_tree
    assert 0 < guesses.share < 1
