"""What is remembered of guesses: it grows with what was seen, fades, and nothing broken is believed."""

import pytest
from tiny_spec import model

from llmrun.cli.guesses_file import MOST_GUESSES, keep_guesses, known_acceptance
from llmrun.planner.drafting import ACCEPTANCE
from llmrun.units import MIB

SPEC = model([MIB] * 2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_nothing_seen_is_what_models_have():
    assert known_acceptance(SPEC) == ACCEPTANCE
    keep_guesses(SPEC, 0, 0)
    assert known_acceptance(SPEC) == ACCEPTANCE


def test_what_was_seen_counts_more_the_more_it_is():
    found = [known_acceptance(SPEC)]
    for _ in range(4):
        keep_guesses(SPEC, 5, 50)
        found.append(known_acceptance(SPEC))
    assert found == sorted(found, reverse=True)
    assert 0.1 < found[-1] < 0.3
    assert known_acceptance(model([MIB] * 3)) == ACCEPTANCE


def test_old_guesses_fade():
    for _ in range(10):
        keep_guesses(SPEC, 0, MOST_GUESSES // 2)
    for _ in range(4):
        keep_guesses(SPEC, MOST_GUESSES // 2, MOST_GUESSES // 2)
    assert known_acceptance(SPEC) > 0.9


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 1, "right": 9, "tried": 3}', '{"schema": 7, "right": 1, "tried": 3}']
)
def test_a_broken_file_says_nothing(cache, text):
    keep_guesses(SPEC, 1, 2)
    (path,) = (cache / "guesses").iterdir()
    path.write_text(text)
    assert known_acceptance(SPEC) == ACCEPTANCE


def test_a_folder_that_cannot_be_written_is_left_alone(cache):
    cache.write_text("a file")
    keep_guesses(SPEC, 1, 2)
    assert known_acceptance(SPEC) == ACCEPTANCE
