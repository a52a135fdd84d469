"""What a process that runs a model finds in its environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmrun.environment import TUNABLES, begin_again_for_models, for_models

NO_CACHE = "glibc.malloc.tcache_count=0"

TOLD = """
import os, sys
print(os.getpid())
from llmrun.environment import begin_again_for_models
begin_again_for_models()
print(os.environ["GLIBC_TUNABLES"], os.environ["OMP_WAIT_POLICY"], sys.argv[1:], sys.flags.dont_write_bytecode)
"""


def test_nothing_is_set() -> None:
    assert for_models({"HOME": "/home"}) == {
        "HOME": "/home",
        "TRANSFORMERS_VERBOSITY": "error",
        "OMP_WAIT_POLICY": "PASSIVE",
        TUNABLES: NO_CACHE,
    }


def test_what_is_set_stays() -> None:
    environment = {
        "TRANSFORMERS_VERBOSITY": "info",
        "OMP_WAIT_POLICY": "ACTIVE",
        TUNABLES: "glibc.malloc.tcache_count=3:glibc.malloc.perturb=1",
    }
    assert for_models(environment) == environment


def test_other_tunables_stay() -> None:
    assert for_models({TUNABLES: "glibc.malloc.perturb=1"})[TUNABLES] == f"glibc.malloc.perturb=1:{NO_CACHE}"


def test_a_process_that_has_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execv", None)  # would fail
    for name, value in for_models(os.environ).items():
        monkeypatch.setenv(name, value)
    begin_again_for_models()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_the_same_command_begins_again_once() -> None:
    environment = {name: value for name, value in os.environ.items() if name != TUNABLES}
    done = subprocess.run(
        [sys.executable, "-B", "-u", "-c", TOLD, "chat", "--ram", "4GiB", "an ä"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    first, second, told = done.stdout.splitlines()
    assert first == second  # the process is the same one, so that signals still find it
    assert told == f"{NO_CACHE} PASSIVE ['chat', '--ram', '4GiB', 'an ä'] 1"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_where_it_cannot_begin_again_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TUNABLES, raising=False)
    monkeypatch.setattr(sys, "executable", "")  # as in a program that embeds Python
    begin_again_for_models()
    assert os.environ[TUNABLES] == NO_CACHE
