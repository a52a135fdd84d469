"""Checkpoints that others quantised to integers, from outside: repacked once, told before, kept, found and deleted."""

import json
import resource
import shutil
from pathlib import Path

import pytest
from integer_checkpoints import Kind, write_integers
from run_cli import llmrun


@pytest.fixture
def folder(tmp_path: Path, tokenizer_folder: Path) -> Path:
    folder = Path(shutil.copytree(tokenizer_folder, tmp_path / "tiny-gptq"))
    write_integers(folder, Kind("gptq"), vocab_size=320, eos_token_id=319)
    return folder


@pytest.fixture
def env(measured: dict[str, object], tmp_path: Path) -> dict[str, object]:
    cache = shutil.copytree(str(measured["LLMRUN_CACHE"]), tmp_path / "cache")
    return measured | {"LLMRUN_CACHE": cache}


def asked(model: object, env: dict[str, object]) -> tuple[str, str]:
    done = llmrun("chat", model, "-p", "the cat", "--temperature", "0", "--max-tokens", "8", **env)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_first_run_tells_what_it_does_and_the_next_one_nothing(folder: Path, env: dict[str, object]) -> None:
    answer, told = asked(folder, env)
    assert "tiny-gptq is gptq, 4 bits in groups of 32" in told
    assert "14 matrices Q4_0" in told
    assert "`llmrun rm tiny-gptq-repacked` deletes it" in told
    again, silent = asked(folder, env)
    assert again == answer
    assert "repacked" not in silent
    assert asked("tiny-gptq-repacked", env)[0] == answer
    models = {one["name"]: one for one in json.loads(llmrun("list", "--json", **env).stdout)["models"]}
    assert models["tiny-gptq-repacked"]["origin"] == "repacked"
    assert models["tiny-gptq-repacked"]["source"] == str(folder)
    assert llmrun("rm", "tiny-gptq-repacked", "--yes", **env).returncode == 0
    assert folder.is_dir()
    assert "is repacked once" in llmrun("pull", folder, **env).stderr


def test_a_plan_that_was_made_before_holds_afterwards(folder: Path, env: dict[str, object]) -> None:
    planned = llmrun("plan", folder, **env)
    assert planned.returncode == 0, planned.stderr
    assert "Q4_0" in planned.stdout
    assert not list((Path(str(env["LLMRUN_CACHE"])) / "models").glob("*"))
    assert llmrun("plan", folder, "--dry-run", **env).returncode == 0
    assert "the plan that `llmrun plan` saved is used" in asked(folder, env)[1]


def test_a_checkpoint_that_changed_is_repacked_anew(folder: Path, env: dict[str, object]) -> None:
    first = llmrun("pull", folder, **env).stdout.strip()
    write_integers(folder, Kind("gptq", bits=8), vocab_size=320, eos_token_id=319)
    second = llmrun("pull", folder, **env).stdout.strip()
    assert first != second
    assert not Path(first).exists()
    assert "Q8_0" in (Path(second) / "model.safetensors").read_bytes()[:20_000].decode(errors="replace")


def test_a_disk_that_is_full_leaves_nothing_that_could_be_run(folder: Path, env: dict[str, object]) -> None:
    def few_bytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = llmrun("pull", folder, preexec=few_bytes, **env)
    assert done.returncode == 5, done.stderr
    assert "error: disk-full" in done.stderr
    assert "is repacked once" in done.stderr
    assert not list((Path(str(env["LLMRUN_CACHE"])) / "models").glob("[!.]*"))


def test_it_is_not_quantised_again(folder: Path, env: dict[str, object], tmp_path: Path) -> None:
    done = llmrun("quantize", folder, "-o", tmp_path / "made", **env)
    assert done.returncode == 4
    assert "error: already-quantized" in done.stderr
