"""``--speculate`` from outside: the same answer, in fewer passes; and what is told of it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from run_cli import llmrun, refused
from tiny_model import FAMILIES, save

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


@pytest.fixture(scope="module")
def sure(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path):
    """Makes tiny models that are sure of what they say, all with the same tokens."""

    def make(family: str) -> Path:
        folder = shutil.copytree(tokenizer_folder, tmp_path_factory.mktemp(family) / family)
        model = FAMILIES[family].build(vocab_size=320, eos_token_id=319, tie_word_embeddings=False)
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(100)
        return save(model, folder)

    return make


@pytest.fixture(scope="module")
def large(sure) -> Path:
    return sure("llama")


@pytest.fixture(scope="module")
def small(sure) -> Path:
    return sure("qwen2")


def test_a_small_model_drafts(large: Path, small: Path, measured: Environment, tmp_path: Path):
    """The best there is, the model itself, and one that knows nothing of it; by plans that say that it pays.

    It hardly does with models as small as these.
    """
    path = tmp_path / "plan.json"
    pays = {"draft_tokens": 8, "acceptance": 0.9, "draft_s": 8e-6, "pass_s": 1.0, "alone_s": 1.0}
    pays |= {"load_s": 0.0, "prompt_token_s": 0.0}

    def ask(*args: object):
        line = ("-p", TEXT, "--temperature", 0, "--max-tokens", 48, "--json", "--stats")
        done = llmrun("chat", large, *line, *args, **measured)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    plain, _ = ask("--speculate", "off")
    for other in (large, small):
        done = llmrun("plan", large, "--speculate", other, "--draft-tokens", 8, "--output", path, **measured)
        assert done.returncode == 0, done.stderr
        plan = json.loads(path.read_text())
        plan["prediction"]["drafting"] |= pays
        path.write_text(json.dumps(plan))
        drafted, said = ask("--plan", path, "--speculate", other, "--draft-tokens", 8)
        assert drafted["text"] == plain["text"]
        assert drafted["speculation"]["drafted_tokens"] > 0
        assert drafted["predicted"]["tokens_per_pass"] > 1
        assert drafted["plan"]["speculating"]["method"] == str(other)
        lines = {line["label"]: line["nbytes"] for line in drafted["plan"]["memory"][0]["lines"]}
        assert lines["draft model"] == drafted["plan"]["workload"]["draft_model_bytes"]
        assert "tokens a pass" in said
        assert "gained" in said
        if other == large:
            assert set(drafted["speculation"]["acceptance_by_place"]) == {1.0}


def test_a_plan_for_a_small_model_is_shown_and_run(large: Path, small: Path, measured: Environment, tmp_path: Path):
    path = tmp_path / "plan.json"
    done = llmrun("plan", large, "--speculate", small, "--output", path, "--explain", **measured)
    assert done.returncode == 0, done.stderr
    assert "guesses right" in done.stdout
    assert "with its KV cache" in " ".join(done.stdout.split())
    line = ("chat", large, "-p", TEXT, "--temperature", 0, "--max-tokens", 12, "--json", "--plan", path)
    drafted, off = (json.loads(llmrun(*line, *args, **measured).stdout) for args in ((), ("--speculate", "off")))
    assert drafted["text"] == off["text"]
    assert [one["speculation"] is None for one in (drafted, off)] == [False, True]
    other = refused(llmrun(*line, "--speculate", large, **measured), 2, "bad-option")
    assert "--plan has" in other[0]


def test_bench_takes_a_small_model(large: Path, small: Path, measured: Environment):
    line = ("bench", large, "-p", 0, "-n", 16, "-r", 1, "-o", "json", "--speculate", small)
    done = llmrun(*line, **measured)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["tokens_per_pass"] >= 1


def test_a_model_with_other_tokens_is_refused(large: Path, small: Path, measured: Environment, tmp_path: Path):
    other = shutil.copytree(small, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    for command in (("chat", large, "-p", "x"), ("plan", large, "--dry-run")):
        text = "\n".join(refused(llmrun(*command, "--speculate", other, **measured), 2, "draft-tokenizer"))
        assert "2 of 320 tokens" in text
        assert "'a'" in text


def test_what_does_not_fit_beside_it_is_refused(large: Path, small: Path, measured: Environment):
    done = llmrun("chat", large, "-p", "x", "--ram", "64MiB", "--speculate", small, **measured)
    assert "draft model" in "\n".join(refused(done, 3, "plan-over-budget"))


def test_what_there_is_not_is_refused(tiny_checkpoint: Path, measured: Environment):
    done = llmrun("chat", tiny_checkpoint, "-p", "x", "--speculate", "somemodel", **measured)
    assert "somemodel" in refused(done, 4, "model-not-found")[0]
