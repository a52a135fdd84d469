"""The committed completion scripts are what the command itself prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "completions"


@pytest.mark.parametrize(("shell", "file"), [("bash", "llmrun.bash"), ("zsh", "_llmrun"), ("fish", "llmrun.fish")])
def test_completions_are_current(shell: str, file: str) -> None:
    llmrun = Path(sys.executable).with_name("llmrun")
    env = {**os.environ, "_LLMRUN_COMPLETE": f"source_{shell}"}
    printed = subprocess.run([llmrun], env=env, capture_output=True, text=True, check=True).stdout
    assert (FOLDER / file).read_text() == printed
