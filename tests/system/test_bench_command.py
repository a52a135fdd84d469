"""``llmrun bench`` from outside: only rows on standard output, whole whatever ends the run, and its exit code."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from run_cli import failed, llmrun, refused, start

Environment = dict[str, object]


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, measured: Environment):
    def bench(*args: object):
        return llmrun("bench", tiny_checkpoint, "-r", 2, *args, **measured)

    return bench


@pytest.fixture(scope="module")
def in_json(run):
    return run("-p16", "-n", 4, "-pg", "8,4", "-d", "0,8", "-o", "json", "-oe", "jsonl")


def error_in(stderr: str) -> str:
    return stderr[stderr.index("error: ") :]


def test_json_goes_through_a_pipe(in_json):
    assert in_json.returncode == 0, in_json.stderr
    tool = [sys.executable, "-m", "json.tool"]
    whole = subprocess.run(tool, input=in_json.stdout, capture_output=True, text=True, check=True)
    rows = json.loads(whole.stdout)
    assert [(row["n_prompt"], row["n_gen"], row["n_depth"]) for row in rows] == [
        (16, 0, 0), (0, 4, 0), (8, 4, 0), (16, 0, 8), (0, 4, 8), (8, 4, 8),
    ]  # fmt: skip
    assert all(len(row["samples_ns"]) == 2 and row["ceiling_ts"] > 0 and row["predicted_ts"] > 0 for row in rows)
    assert {(row["n_ctx"], row["cache_state"], row["disk_bytes_per_token"]) for row in rows} == {(24, "warm", 0.0)}
    said = in_json.stderr.splitlines()
    assert [json.loads(line) for line in said if line.startswith("{")] == rows
    assert said[0].startswith("plan ")
    assert said[1].startswith("pp16: ceiling ")


def test_sql_is_read_by_sqlite_and_a_comparison_with_what_was_slower_passes(run, in_json, tmp_path):
    before = tmp_path / "slower.json"
    rows = json.loads(in_json.stdout)
    before.write_text(json.dumps([row | {"samples_ns": [n * 1000 for n in row["samples_ns"]]} for row in rows]))
    done = run("-p", 16, "-n", 4, "-o", "sql", "--compare", before)
    assert done.returncode == 0, done.stderr
    database = sqlite3.connect(":memory:")
    database.executescript(done.stdout)
    found = database.execute("SELECT n_prompt, n_gen, avg_ts > 0 FROM llmrun_bench").fetchall()
    database.close()
    assert found == [(16, 0, 1), (0, 4, 1)]
    assert "before t/s" in done.stderr
    assert "REGRESSION" not in done.stderr


def test_a_comparison_finds_a_regression_after_the_table(run, in_json, tmp_path):
    before = tmp_path / "faster.json"
    before.write_text(json.dumps([row | {"samples_ns": [1000, 1001]} for row in json.loads(in_json.stdout)]))
    done = run("-p16", "-n0", "--progress", "--no-warmup", "--compare", before)
    header, rule, row = done.stdout.splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    assert " pp16 " in row
    assert "pp16: repetition 1 of 2" in done.stderr
    assert "warm-up" not in done.stderr
    assert "REGRESSION" in done.stderr
    failed(done.returncode, error_in(done.stderr), 1, "regression")


def test_cold_samples_load_the_weights(run, in_json):
    (cold,) = json.loads(run("-p", 16, "-n", 0, "--cold", "-o", "json").stdout)
    warm = json.loads(in_json.stdout)[0]
    assert (cold["cache_state"], len(cold["samples_ns"])) == ("cold", 2)
    assert cold["disk_bytes_per_token"] > 0.9 * cold["model_size"] / 16
    assert cold["ceiling_ts"] < warm["ceiling_ts"]
    assert cold["plan_id"] != ""


def test_a_failure_in_the_middle_of_a_sweep_leaves_what_was_measured(run):
    done = run("-p", 16, "-n", 0, "--sweep", "ram=2GiB,100MiB", "-o", "json")
    assert [(row["sweep"], row["ram_budget_bytes"]) for row in json.loads(done.stdout)] == [("2GiB", 2 << 30)]
    failed(done.returncode, error_in(done.stderr), 3, "plan-over-budget")


@pytest.mark.parametrize(
    ("args", "code", "reference"),
    [
        (["-p", "banana"], 2, "bad-option"),
        (["-p", 0, "-n", 0], 2, "bad-option"),
        (["-o", "yaml"], 2, "bad-option"),
        (["--context", 8], 2, "bad-option"),
        (["-d", 4000], 2, "context-too-long"),
        (["--cold", "-d", 8], 2, "bad-option"),
        (["--plot", "x.svg"], 2, "bad-option"),
        (["--compare", "nowhere.json"], 2, "file-unreadable"),
        (["--ui", "big"], 2, "bad-option"),
    ],
)
def test_what_is_refused_prints_no_row(run, args, code, reference):
    refused(run(*args), code, reference)


def test_an_interruption_prints_the_finished_rows(wide_checkpoint, measured):
    options = ("-p", 4, "-n", 2000, "-r", 3, "-o", "json")
    process = start("bench", wide_checkpoint, *options, **measured)
    begun = until(process.stdout, "  }")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (row,) = json.loads(begun + out)
    assert (row["n_prompt"], len(row["samples_ns"])) == (4, 3)
    assert err.endswith("error: interrupted\nstopped by the user\n")


def until(stream, end):
    text = ""
    while not text.endswith(end):
        text += stream.read(1)
    return text


def test_a_reader_that_leaves(wide_checkpoint, measured):
    process = start("bench", wide_checkpoint, "-p", "1-1000", "-n", 0, "-r", 1, "-o", "jsonl", **measured)
    assert process.stdout.readline()
    process.stdout.close()  # as `head -1` does
    with process:
        assert "error" not in process.stderr.read()
    assert process.returncode == 141
