"""Prompts and limits that cannot be met, and what is written where."""

import json
import os
import re
from pathlib import Path
from typing import Any

from run_cli import llmrun, refused


def test_a_prompt_longer_than_the_context(folder: Path) -> None:
    lines = refused(llmrun("chat", folder, "-f", "-", "--context", 128, stdin="word " * 300), 2, "prompt-too-long")
    assert "the context holds 128" in lines[0]
    assert lines[1] == "hint: shorten the prompt"


def test_a_context_longer_than_the_model_was_made_for(folder: Path) -> None:
    lines = refused(llmrun("chat", folder, "-p", "hi", "--context", 100_000), 2, "context-too-long")
    assert lines[1] == "hint: `--context 256`"


def test_an_empty_prompt(folder: Path) -> None:
    refused(llmrun("chat", folder, "-f", "-", stdin=" \n"), 2, "empty-prompt")


def test_a_limit_that_is_no_amount(folder: Path) -> None:
    lines = refused(llmrun("chat", folder, "-p", "hi", "--ram", "banana"), 2, "bad-size")
    assert "'banana'" in lines[0]
    assert "--ram 8GiB" in lines[1]


def test_too_little_memory_is_told_with_an_account_and_its_hint_is_true(folder: Path, tmp_path: Path) -> None:
    lines = refused(llmrun("chat", folder, "-p", "hi", LLMRUN_RAM="50MiB"), 3, "plan-over-budget")
    assert "within 50.0 MiB at 256 tokens" in lines[0]
    labels = [line.split("  ")[1] for line in lines[1:-1]]
    assert labels == ["weights", "weight ring", "KV cache", "workspace", "process", "total"]
    hint = re.fullmatch(r"hint: `--ram (\d+MiB)` is enough for this context", lines[-1])
    assert hint
    memory = answer_that_writes_nothing(folder, tmp_path / "home", LLMRUN_RAM=hint[1])["memory"]["cpu"]
    assert memory["peak_bytes"] <= memory["budget_bytes"] == int(hint[1].removesuffix("MiB")) << 20


def answer_that_writes_nothing(folder: Path, home: Path, **env: str) -> dict[str, Any]:
    """The object of ``--json``, the only thing on standard output; the disk has new caches of 16 KiB at most."""
    home.mkdir()
    before = snapshot(folder)
    where = {"HOME": home, "TMPDIR": home, "XDG_CACHE_HOME": home / "cache", "XDG_STATE_HOME": home / "state"}
    options = ["--max-tokens", 3, "--json"]
    done = llmrun("chat", folder, "-p", "hi", *options, cwd=home, HF_HOME=home / "hf", **where, **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(folder) == before
    assert sum(size for size, _ in snapshot(home).values()) <= 16 << 10
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["new_tokens"] == 3
    return answer


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below ``folder``."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            status = Path(place, name).stat()
            found[str(Path(place, name))] = status.st_size, status.st_mtime_ns
    return found
