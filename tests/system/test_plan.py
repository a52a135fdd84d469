"""``llmrun plan`` from outside: on a machine that is not this one, and on this one without a trace."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from run_cli import ENVIRONMENT, llmrun, refused
from shapes import write_sparse
from tiny_checkpoint import write_checkpoint

PRESET = "laptop-16gib"
HEAVY = {"torch", "transformers", "prompt_toolkit"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("plan") / "tiny")


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    return write_sparse("Llama-3.1-8B", tmp_path_factory.mktemp("plan") / "large")


def everything(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")])


def test_a_dry_run_prints_a_view_and_touches_nothing(tiny, tmp_path):
    before = everything(tiny)
    done = llmrun("plan", tiny, "--dry-run", "--hardware", PRESET, LLMRUN_CACHE=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert all(label in done.stdout for label in ("tier", "layer 0", "RR", "first token", "decode", "gap", "planner"))
    assert "planned in" in done.stderr
    assert "planned in" not in done.stdout
    assert everything(tiny) == before
    assert not (tmp_path / "cache").exists()


def test_the_same_inputs_give_the_same_bytes(large):
    args = ("plan", large, "--dry-run", "--hardware", PRESET, "--json", "--explain")
    first, second = llmrun(*args), llmrun(*args)
    assert first.stdout == second.stdout
    value = json.loads(first.stdout)
    assert value["prediction"]["decode_tokens_per_s"] > 0
    assert value["certificate"]["gap"] >= -1e-9
    assert len(value["what_if"]) == 4


def test_neither_torch_nor_transformers_is_imported(large):
    code = (
        "import sys\n"
        "from llmrun.cli.app import main\n"
        f"code = main(['plan', {str(large)!r}, '--dry-run', '--hardware', {PRESET!r}])\n"
        "print('modules', code, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    _, code, *modules = done.stderr.splitlines()[-1].split()
    assert code == "0"
    assert not HEAVY & set(modules)


def test_compare_lists_every_planner(tiny):
    done = llmrun("plan", tiny, "--dry-run", "--hardware", PRESET, "--compare")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("aco", "greedy", "even", "exhaustive", "milp", "random", "nsga2"))


def test_a_host_that_was_not_measured(large, tmp_path):
    done = llmrun("plan", large, "--dry-run", LLMRUN_CACHE=tmp_path)
    assert "--measure" in refused(done, 2, "no-speeds")[-1]


def test_a_plan_for_other_hardware_is_written_only_where_it_is_asked_for(large, tmp_path):
    cache, path = tmp_path / "cache", tmp_path / "plan.json"
    done = llmrun("plan", large, "--hardware", PRESET, LLMRUN_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert "not saved" in done.stderr
    assert not cache.exists()
    assert llmrun("plan", large, "--hardware", PRESET, "--output", path, LLMRUN_CACHE=cache).returncode == 0
    assert json.loads(path.read_text())["hardware"] == f"preset {PRESET}"


def test_a_plan_for_this_host_is_saved(tiny, tmp_path):
    done = llmrun("plan", tiny, LLMRUN_CACHE=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "plans").glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("args", "code", "reference", "says"),
    [
        (["--context", 10**6], 2, "context-too-long", "64 tokens"),
        (["--prompt-tokens", 64], 2, "bad-option", "--context 65"),
        (["--optimize", "speed"], 2, "bad-option", "tpot"),
        (["--planner", "magic"], 2, "bad-option", "greedy"),
        (["--planner-time", 0], 2, "bad-option", "planner-time"),
        (["--hardware", "a-cray"], 2, "bad-hardware-file", "laptop-16gib"),
        (["--output", "plan.json"], 2, "bad-option", "--dry-run"),
        (["--ram", 0], 3, "plan-over-budget", "0 B"),
        (["--ram", "100MiB"], 3, "plan-over-budget", "total"),
        (["--ram", "much"], 2, "bad-size", "'much'"),
    ],
)
def test_what_is_refused(tiny, args, code, reference, says):
    hardware = [] if "--hardware" in args else ["--hardware", PRESET]
    done = llmrun("plan", tiny, "--dry-run", *hardware, *args)
    lines = [line for line in done.stderr.splitlines() if "estimated from data sheets" not in line]
    assert done.stdout == ""
    assert (done.returncode, lines[0]) == (code, f"error: {reference}")
    assert says in "\n".join(lines)


def test_the_budget_of_the_hint_is_enough(large):
    done = llmrun("plan", large, "--dry-run", "--hardware", PRESET, "--ram", "1GiB")
    assert done.returncode == 3
    option, value = done.stderr.splitlines()[-1].split("`")[1].split()
    assert llmrun("plan", large, "--dry-run", "--hardware", PRESET, "--ram", "1GiB", option, value).returncode == 0


def test_output_that_cannot_be_written(tiny, tmp_path):
    done = llmrun("plan", tiny, "--hardware", PRESET, "--output", tmp_path / "no" / "plan.json")
    assert done.returncode == 5
    assert "error: write-failed" in done.stderr
