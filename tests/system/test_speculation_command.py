"""``--speculate`` from outside: the same answer, in fewer passes; and what is told of it."""

import json
from pathlib import Path

import pytest
from run_cli import llmrun, refused

Environment = dict[str, object]
TEXT = "one two three one two three one two three"


@pytest.fixture(scope="module")
def ask(tiny_checkpoint: Path, measured: Environment):
    def chat(*args: object):
        done = llmrun(
            "chat", tiny_checkpoint, "-p", TEXT, "--temperature", 0, "--max-tokens", 48, "--json", *args, **measured
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    return chat


def test_the_answer_is_the_same_in_fewer_passes(ask):
    (plain, _), (drafted, said) = ask(), ask("--speculate", "ngram", "--draft-tokens", 8, "--stats")
    assert drafted["text"] == plain["text"]
    assert plain["speculation"] is None
    done = drafted["speculation"]
    assert done["passes"] + done["accepted_tokens"] == drafted["new_tokens"] - 1
    assert done["tokens_per_pass"] == pytest.approx(1 + done["accepted_tokens"] / done["passes"])
    assert len(done["acceptance_by_place"]) <= 8
    assert "tokens a pass" in said


def test_bench_tells_of_it(tiny_checkpoint: Path, measured: Environment):
    done = llmrun(
        "bench", tiny_checkpoint, "-p", 0, "-n", 32, "-r", 2, "-o", "json", "--speculate", "ngram", **measured
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["tokens_per_pass"] >= 1
    assert row["tpot_ms"] > 0


def test_what_cannot_be_done_is_refused(tiny_checkpoint: Path, measured: Environment):
    done = llmrun("chat", tiny_checkpoint, "-p", "x", "--speculate", "self", **measured)
    assert "self" in refused(done, 2, "bad-option")[0]
