"""The real command line in a process of its own, and what every refusal of it has in common."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("LLMRUN_")} | {
    "LLMRUN_CONFIG": ""  # a developer's own settings file
}
LLMRUN = (sys.executable, "-m", "llmrun")

Done = subprocess.CompletedProcess[str]


def llmrun(
    *args: object,
    stdin: str = "",
    prefix: Sequence[str] = (),
    preexec: Any = None,
    cwd: Path | None = None,
    **env: object,
) -> Done:
    """Run a command to its end; ``prefix`` stands before it, ``preexec`` runs in the child, ``env`` is added."""
    return subprocess.run(
        [*prefix, *LLMRUN, *map(str, args)],
        input=stdin, capture_output=True, text=True, timeout=100, check=False, preexec_fn=preexec,
        cwd=cwd, env=_with(env),
    )  # fmt: skip


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
