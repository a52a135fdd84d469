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


@pytest.fixture(scope="module")
def tight(wide_checkpoint: Path, measured: Environment) -> list[object]:
    """Options of a budget in which something has to stream, and copies of it have room."""
    args = ("--ram", "4GiB", "--context", 256, "--json", "--dry-run")
    plan = json.loads(llmrun("plan", wide_checkpoint, *args, **measured).stdout)["plan"]
    lines = {line["label"]: line["nbytes"] for line in plan["memory"][0]["lines"]}
    return ["--context", 256, "--ram", f"{(sum(lines.values()) - lines['weights'] // 4) // 2**20}MiB"]


def test_the_model_drafts_for_itself(wide_checkpoint: Path, measured: Environment, tight: list[object]):
    def ask(*args: object) -> dict[str, object]:
        line = ("-p", "ab", "--temperature", 0, "--max-tokens", 24, "--json", *tight)
        done = llmrun("chat", wide_checkpoint, *line, *args, **measured)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    plain, drafted = ask("--speculate", "off"), ask("--speculate", "self")
    assert drafted["text"] == plain["text"]
    assert {one["substitute"] for one in drafted["plan"]["placements"]} == {None, "q4"}
    assert drafted["speculation"]["drafted_tokens"] > 0
    assert drafted["predicted"]["tokens_per_pass"] > 1
    assert plain["predicted"]["tokens_per_pass"] is None
    assert drafted["memory"]["cpu"]["peak_bytes"] <= drafted["memory"]["cpu"]["budget_bytes"]


def test_a_plan_shows_the_trade_and_is_run(
    wide_checkpoint: Path, measured: Environment, tight: list[object], tmp_path: Path
):
    path = tmp_path / "plan.json"
    done = llmrun("plan", wide_checkpoint, "--speculate", "self", "--output", path, "--explain", *tight, **measured)
    assert done.returncode == 0, done.stderr
    assert "tokens a pass" in done.stdout
    assert "guesses right" in done.stdout
    line = ("-p", "ab", "--temperature", 0, "--max-tokens", 12, "--json", "--plan", path)
    answers = [
        json.loads(llmrun("chat", wide_checkpoint, *line, *args, **measured).stdout)
        for args in ((), ("--speculate", "off"))
    ]
    assert answers[0]["text"] == answers[1]["text"]
    assert [answer["speculation"] is None for answer in answers] == [False, True]


def test_what_there_is_not_is_refused(tiny_checkpoint: Path, measured: Environment):
    done = llmrun("chat", tiny_checkpoint, "-p", "x", "--speculate", "some/model", **measured)
    assert "some/model" in refused(done, 2, "bad-option")[0]
