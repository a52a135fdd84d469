"""`llmrun compare` from outside: llmrun beside a server, Ctrl-C, a pipe, and how it refuses."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import streaming_server as server
from run_cli import failed, llmrun, refused, start
from streaming_server import serving

SMALL = ("--num-prompts", 2, "--input-len", 4, "--output-len", 3)


def test_llmrun_beside_a_server(wide_checkpoint: Path, measured: dict[str, object]) -> None:
    with serving() as running:
        done = llmrun(
            "compare", f"there={running.url}/v1", f"here=llmrun:{wide_checkpoint}", *SMALL, "--context", 512,
            "--ignore-eos", "--goodput", "ttft:100000", "e2el:100000", "--json", **measured,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    there, here = json.loads(done.stdout)["targets"]
    assert (here["completed"], here["failed"], here["total_output_tokens"]) == (2, 0, 6)
    assert here["counted_by"] == ["engine"]
    assert here["total_input_tokens"] > 2 * 4
    assert here["request_goodput"] == here["request_throughput"]
    assert here["mean_e2el_ms"] > here["mean_ttft_ms"] > here["mean_tpot_ms"] > 0
    assert (there["label"], there["completed"]) == ("there", 2)
    assert all(body["ignore_eos"] for body in running.bodies)


def test_interrupt_keeps_what_was_answered() -> None:
    with serving(server.ok, server.never_answers) as running:
        process = start("compare", running.url, *SMALL, "--num-warmups", 0, "--max-concurrency", 1, "--json")
        wait_for_posts(running, 2, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\nstopped by the user\n")
    (target,) = json.loads(out)["targets"]
    assert (target["completed"], target["failed"], target["interrupted"]) == (1, 0, True)
    assert target["notes"] == ["interrupted: 1 of 2 requests had not ended"]


def wait_for_posts(running: server.StreamingServer, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while len(running.bodies) < count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_table_without_colour_in_a_pipe_and_the_key_of_the_environment() -> None:
    with serving(server.ok, server.fails, server.ok) as running:
        done = llmrun("compare", running.url, *SMALL, "--num-warmups", 0, OPENAI_API_KEY="sesame")
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(re.findall(r"^(\w+ requests) +(\d+)$", done.stdout, re.MULTILINE))
    assert rows["Successful requests"] == rows["Failed requests"] == "1"
    assert "1 failed: HTTP 500" in done.stdout
    assert "\x1b" not in done.stdout
    assert "sesame" not in done.stdout
    assert running.headers[0]["Authorization"] == "Bearer sesame"


def test_prompts_of_a_file_as_completions(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Name a river."}\n{"prompt": "Name a lake."}\n')
    with serving(server.text_ok) as running:
        done = llmrun(
            "compare", running.url, "--dataset", file, "--endpoint", "completions", "--model", "m",
            "--request-rate", 1000, "--num-warmups", 0, "--json",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(body["prompt"] for body in running.bodies) == ["Name a lake.", "Name a river."]
    assert {body["model"] for body in running.bodies} == {"m"}


def test_all_failed() -> None:
    with serving(server.fails) as running:
        done = llmrun("compare", running.url, *SMALL)
    lines = failed(done.returncode, done.stderr, 5, "all-requests-failed")
    assert lines[1].endswith("2   HTTP 500 Internal Server Error: <html>Internal Server Error</html>")
    assert "Failed requests" in done.stdout


def test_nobody_listens() -> None:
    with serving() as gone:
        pass
    refused(llmrun("compare", gone.url, *SMALL), 5, "endpoint-unreachable")


@pytest.mark.parametrize(
    ("args", "reference"),
    [
        ([], "bad-option"),
        (["localhost:8000"], "bad-option"),
        (["llmrun", "ttft:500"], "bad-option"),
        (["llmrun", "--goodput", "fast:1"], "bad-option"),
        (["llmrun", "--percentiles", "x"], "bad-option"),
        (["llmrun", "--request-rate", "0"], "bad-option"),
        (["llmrun", "--endpoint", "images"], "bad-option"),
        (["llmrun", "--dataset", "/nowhere.jsonl"], "file-unreadable"),
        (["llmrun", "--dataset", "/nowhere.jsonl", "--input-len", "3"], "bad-option"),
        (["llmrun", "--ram", "banana"], "bad-size"),
    ],
)
def test_what_is_refused_before_anything_begins(args, reference) -> None:
    refused(llmrun("compare", *args), 2, reference)
