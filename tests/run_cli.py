"""The real command line in a process of its own, and what every refusal of it has in common."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llmrun.environment import TUNABLES, for_models

CACHES = tempfile.TemporaryDirectory(prefix="llmrun-tests-")  # gone when the tests are over
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("LLMRUN_", "OMP_"))} | {
    "LLMRUN_CONFIG": "",  # a developer's own settings file
    "XDG_CACHE_HOME": CACHES.name,  # and figures
    TUNABLES: for_models({})[TUNABLES],  # so that nothing starts again
}
LLMRUN = (sys.executable, "-m", "llmrun")
WARM_LLMRUN = Path(__file__).with_name("warm_llmrun.py")
READ_AT_IMPORT = ("PYTHON", "HF_", "XDG_", "HOME")
"""Variables that begin so are read once, by Python or by Hugging Face's libraries."""

Done = subprocess.CompletedProcess[str]


def llmrun(
    *args: object,
    stdin: str = "",
    prefix: Sequence[str] = (),
    preexec: Any = None,
    cwd: Path | None = None,
    **env: object,
) -> Done:
    """Run a command to its end; ``prefix`` stands before it, ``preexec`` runs in the child, ``env`` is added.

    With either, and with variables that are read at import, an interpreter is started for it. Any other is a fork of
    one that has imported the libraries already.
    """
    argv = [*map(str, args)]
    if not prefix and not preexec and not any(name.startswith(READ_AT_IMPORT) for name in env):
        return _forked(argv, stdin, cwd or Path.cwd(), _with(env))
    return subprocess.run(
        [*prefix, *LLMRUN, *argv],
        input=stdin, capture_output=True, text=True, timeout=100, check=False, preexec_fn=preexec,
        cwd=cwd, env=_with(env),
    )  # fmt: skip


def _forked(args: list[str], stdin: str, cwd: Path, env: dict[str, str]) -> Done:
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(stdin)
        command = {"args": args, "env": env, "cwd": str(cwd), "streams": [*map(str, streams)]}
        warm = _warm()
        warm.stdin.write(json.dumps(command) + "\n")
        warm.stdin.flush()
        code = int(warm.stdout.readline())
        return Done(args, code, streams[1].read_text(), streams[2].read_text())


@cache
def _warm() -> subprocess.Popen[str]:
    """The process that commands are forks of, until the tests are over."""
    process = subprocess.Popen(
        [sys.executable, WARM_LLMRUN],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=ENVIRONMENT | {"TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1"},  # the first as the command does
    )  # fmt: skip
    atexit.register(process.communicate)
    return process


def start(*args: object, stderr: int = subprocess.PIPE, **env: object) -> subprocess.Popen[str]:
    """Start a command whose output is read while it runs."""
    return subprocess.Popen(
        [*LLMRUN, *map(str, args)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, env=_with(env),
    )  # fmt: skip


def refused(done: Done, code: int, reference: str) -> list[str]:
    """Nothing on standard output, one error on standard error; its lines below the reference."""
    assert done.stdout == "", done.stdout
    return failed(done.returncode, done.stderr, code, reference)


def failed(returncode: int, stderr: str, code: int, reference: str) -> list[str]:
    """One error on standard error and no traceback; its lines below the reference."""
    first, *lines = stderr.splitlines()
    assert (returncode, first) == (code, f"error: {reference}"), stderr
    assert lines
    assert "Traceback" not in stderr
    return lines


def _with(env: dict[str, object]) -> dict[str, str]:
    return ENVIRONMENT | {name: str(value) for name, value in env.items()}
