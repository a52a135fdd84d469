"""``llmrun plan`` from outside: for a machine that is not this one, for this one without a trace, and for `chat`."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from run_cli import ENVIRONMENT, llmrun, refused
from shapes import write_sparse
from tiny_checkpoint import write_checkpoint

from llmrun.hardware.hardware_file import save_hardware
from llmrun.hardware.presets import preset

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


def at_home(home: Path) -> dict[str, Path]:
    """Every folder that a command may write to is in this one."""
    home.mkdir()
    places = ("TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "LLMRUN_CACHE")
    return {"HOME": home, **{name: home / name.lower() for name in places}}


def test_a_dry_run_prints_a_view_and_touches_nothing(tiny, tmp_path):
    before = everything(tiny)
    done = llmrun("plan", tiny, "--dry-run", "--hardware", PRESET, cwd=tiny, **at_home(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert all(label in done.stdout for label in ("tier", "layer 0", "RR", "first token", "decode", "gap", "planner"))
    assert "planned in" in done.stderr
    assert "planned in" not in done.stdout
    assert everything(tiny) == before
    assert list((tmp_path / "home").iterdir()) == []


def test_the_same_inputs_give_the_same_bytes(large):
    args = ("plan", large, "--dry-run", "--hardware", PRESET, "--planner-time", 0.1, "--json", "--explain")
    first, second = llmrun(*args), llmrun(*args)
    assert first.stdout == second.stdout
    value = json.loads(first.stdout)
    assert value["prediction"]["decode_tokens_per_s"] > 0
    assert value["certificate"]["gap"] >= -1e-9
    assert len(value["what_if"]) == 4


@pytest.mark.parametrize("hardware", [["--hardware", PRESET], []], ids=["preset", "measured"])
def test_neither_torch_nor_transformers_is_imported(large, measured, hardware):
    code = (
        "import sys\n"
        "from llmrun.cli.app import main\n"
        f"code = main(['plan', {str(large)!r}, '--dry-run', '--planner-time', '0.1', *{hardware!r}])\n"
        "print('modules', code, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    env = ENVIRONMENT | {name: str(value) for name, value in measured.items()}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    _, code, *modules = done.stderr.splitlines()[-1].split()
    assert code == "0", done.stderr
    assert "llmrun" in modules
    assert not HEAVY & set(modules)


def test_compare_and_explain_show_every_planner_and_what_would_help(tiny):
    done = llmrun("plan", tiny, "--dry-run", "--hardware", PRESET, "--compare", "--explain")
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^(\w+) {2,}\d", done.stdout.partition("objective")[2], re.MULTILINE)
    ran = {"aco", "greedy", "even", "exhaustive", "milp", "random", *(["nsga2"] if find_spec("pymoo") else [])}
    assert set(names) >= ran
    assert find_spec("pymoo") or "nsga2" in done.stdout
    assert "bottleneck" in done.stdout
    assert all(change in done.stdout for change in ("8 GiB more RAM", "a disk twice as fast", "half the bytes"))


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


def test_chat_runs_the_plan_that_was_saved(folder, tmp_path):
    env = {"LLMRUN_CACHE": tmp_path / "cache", "LLMRUN_VRAM": 0}
    done = llmrun("plan", folder, "--context", 128, "--planner", "greedy", **env)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "cache" / "plans").glob("*.json")
    assert str(path) in done.stderr

    answer = llmrun("chat", folder, "-p", "hi", "--max-tokens", 2, "--json", "--context", 128, **env)
    assert answer.stderr == "the plan that `llmrun plan` saved is used (greedy)\n"
    value = json.loads(answer.stdout)
    assert (value["plan"]["planner"], value["plan"]["workload"]["context_tokens"]) == ("greedy", 128)
    assert value["predicted"]["ttft_s"] > 0


class TestPlanFile:
    """``chat --plan FILE``."""

    @pytest.fixture
    def env(self, tmp_path):
        return {"LLMRUN_CACHE": tmp_path / "cache", "LLMRUN_VRAM": 0}

    @pytest.fixture
    def path(self, folder, tmp_path, env):
        path = tmp_path / "plan.json"
        done = llmrun("plan", folder, "--context", 128, "--planner", "even", "--output", path, **env)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "cache" / "plans").exists()
        return path

    @staticmethod
    def rewritten(path, **changes):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def test_it_is_run(self, folder, path, env):
        done = llmrun("chat", folder, "-p", "hi", "--max-tokens", 2, "--json", "--plan", path, **env)
        assert (done.returncode, done.stderr) == (0, "")
        value = json.loads(done.stdout)["plan"]
        assert (value["planner"], value["workload"]["context_tokens"]) == ("even", 128)

    def test_what_is_not_for_this_run_is_refused(self, folder, tiny, path, tmp_path, env):
        def chat(model, plan, *args):
            return llmrun("chat", model, "-p", "hi", "--plan", plan, *args, **env)

        refused(chat(folder, tmp_path / "none.json"), 2, "file-unreadable")
        refused(chat(tiny, path), 2, "plan-other-model")
        refused(chat(folder, path, "--ram", "100MiB"), 3, "plan-file-over-budget")
        assert "--context" in refused(chat(folder, path, "--context", 64), 2, "bad-option")[0]
        self.rewritten(path, hardware="a cray")
        assert "a cray" in "\n".join(refused(chat(folder, path), 2, "plan-other-hardware"))
        self.rewritten(path, schema=1)
        refused(chat(folder, path), 2, "bad-plan-file")

    def test_a_gpu_that_is_not_there(self, folder, path, env):
        made = llmrun(
            "plan", folder, "--context", 128, "--hardware", "rtx4090", "--vram", "8GiB", "--output", path, **env
        )
        assert made.returncode == 0, made.stderr
        self.rewritten(path, hardware="")
        assert any(place["device"] == "gpu:0" for place in json.loads(path.read_text())["placements"])
        lines = refused(llmrun("chat", folder, "-p", "hi", "--plan", path, **env), 2, "gpu-missing")
        assert "gpu:0" in lines[0]
        assert "`llmrun plan" in lines[-1]


def test_hardware_with_a_figure_that_is_no_number(tiny, tmp_path):
    profile = preset(PRESET)
    slow = replace(profile.speeds, startup_s=float("nan"))
    save_hardware(replace(profile, speeds=slow), tmp_path / "host.json")
    done = llmrun("plan", tiny, "--dry-run", "--hardware", tmp_path / "host.json")
    assert "speeds.startup_s is nan" in refused(done, 2, "bad-hardware-file")[0]


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
