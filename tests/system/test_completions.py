"""The completion scripts in the shells that they are for."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "completions"
BASH = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}
shift 2
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_llmrun_completion llmrun
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { }
compset() { }
_files() { print files }
_arguments() { print -r -- "$@" }
fpath=($1 $fpath)
autoload -Uz _llmrun
shift
words=("$@") CURRENT=$#
_llmrun
"""


@pytest.fixture
def complete(tmp_path):
    """Run a shell in which ``llmrun`` is the one that is tested; its output, line by line."""
    command = tmp_path / "llmrun"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m llmrun "$@"\n')
    command.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith("LLMRUN_")}
    env |= {"PATH": f"{tmp_path}:{env['PATH']}", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    env |= {"LLMRUN_CACHE": str(tmp_path / "ours"), "HF_HOME": str(tmp_path / "hub")}

    def run(*argv):
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["llmrun", "insp"], ["inspect"]),
        (["llmrun", "chat", "smollm2", ":", "13"], ["135m"]),  # as bash breaks the words
        (["llmrun", "plan", "--hardware", "rtx4"], ["rtx4090"]),
        (["llmrun", "plan", "--planner", "=", "gr"], ["greedy"]),
        (["llmrun", "chat", "-p", "'a:b c'", "--planner", "mil"], ["milp"]),
        (["llmrun", "compare", "a", "llmrun", ":", "smollm2", ":", "13"], ["135m"]),
        (["llmrun", "chat", "./fold"], [""]),  # then bash completes files
    ],
)
def test_bash(complete, words, offered):
    line = " ".join(words).replace(" : ", ":").replace(" = ", "=")
    assert complete("bash", "--norc", "-c", BASH, "-", FOLDER / "llmrun.bash", line, *words) == offered


def test_bash_offers_every_alias_where_nothing_is_typed(complete):
    words = ["llmrun", "chat", ""]
    offered = complete("bash", "--norc", "-c", BASH, "-", FOLDER / "llmrun.bash", " ".join(words), *words)
    assert {"smollm2:135m", "qwen2.5:7b"} <= set(offered)


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["llmrun", "chat", "smollm2:13"], ["*: :((\"smollm2\\\\:135m\"))"]),
        (["llmrun", "chat", "-p", "'two words'", "--planner", "mil"], ['*: :(("milp"))']),
        (["llmrun", "chat", "./fold"], ["files"]),
    ],
)  # fmt: skip
def test_zsh_at_the_first_tab(complete, words, offered):
    assert complete("zsh", "-f", "-c", ZSH, "-", FOLDER, *words) == offered


def test_zsh_finds_its_script():
    assert (FOLDER / "_llmrun").read_text(encoding="utf-8").startswith("#compdef llmrun\n")


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish(complete):
    script = f"source {shlex.quote(str(FOLDER / 'llmrun.fish'))}; complete -C 'llmrun chat smollm2:13'"
    assert complete("fish", "--no-config", "-c", script) == ["smollm2:135m"]


def test_the_protocol_for_fish(complete):
    ask = ["_LLMRUN_COMPLETE=complete_fish", "_TYPER_COMPLETE_FISH_ACTION=get-args"]
    assert complete("env", *ask, "_TYPER_COMPLETE_ARGS=llmrun chat smollm2:13", "llmrun") == ["smollm2:135m"]
