"""A process that has imported what a command needs, and runs each command in a fork of itself.

Imports take several seconds of a command that loads a model, and a tenth of one that is refused. A line of JSON on
standard input says what to run: ``args``, ``env``, ``cwd`` and the files that are its ``streams``; the answer is a
line with the exit code, negative for a signal. Nothing has been computed before a fork; the threads of numpy's BLAS
are there already, and it starts them anew in the fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import warnings
from importlib import import_module
from typing import Any, NoReturn

from llmrun.__main__ import main

IMPORTS = (
    "pydantic.type_adapter",
    "llmrun.cli.app",
    "llmrun.cli.bench_run",
    "llmrun.engine.engine",
    "llmrun.planner.make",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)
LIMIT_S = 100
FLAGS = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def become(command: dict[str, Any]) -> None:
    """Take over all that a process of its own would have been given."""
    for number, (path, flags) in enumerate(zip(command["streams"], FLAGS, strict=True)):
        os.dup2(os.open(path, flags), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the one before has read ahead
    os.environ.clear()
    os.environ.update(command["env"])
    os.chdir(command["cwd"])
    tempfile.tempdir = None  # TMPDIR may be another
    sys.argv = ["llmrun", *command["args"]]
    signal.alarm(LIMIT_S)


def run(command: dict[str, Any]) -> NoReturn:
    """Run the command and end: without taking apart what was imported, which costs as much as importing it."""
    become(command)
    code = main()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    """Answer until there is nothing more to run."""
    for line in sys.stdin:
        with warnings.catch_warnings(action="ignore"):  # since 3.12, of any thread
            child = os.fork()
        if not child:
            run(json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    for name in IMPORTS:
        import_module(name)
    serve()
