"""Ask the process that measures (see ``measuring``), and take what it tells until its time is over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from llmrun.environment import for_models
from llmrun.hardware.measuring import Request

OUT_OF_TIME = "measuring did not end in time; `LLMRUN_MEASURE_S=30 llmrun inspect --refresh` gives it more"
MARGIN_S = 0.3  # of the limit: for the interpreter to start and to end
LOOK_S = 0.1
LONGEST = 3.0
"""Times the limit: a process that has not imported torch by then is not waited for."""


@dataclass
class Found:
    """What the process told before it ended: figures by path (``start``, ``cpu.layer_s``), and lines to show."""

    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    in_time: bool = True

    def take(self, line: bytes) -> None:
        """One line; whatever else was printed, and the half of a line, is passed over."""
        with suppress(ValueError, KeyError, TypeError):
            answer = json.loads(line)
            if answer["part"] == "note":
                self.notes.append(str(answer["value"]))
            else:
                self.figures[answer["part"]] = answer["value"]


def ask(request: Request, command: Sequence[str] = ()) -> Found:
    """What a process that measures finds before the request's time is over; then it is ended."""
    found = Found()
    try:
        process = _start(command or (sys.executable, "-m", "llmrun.hardware.measuring"))
    except OSError as error:
        found.notes.append(f"the process that measures could not be started: {error.strerror}")
        return found
    with process:
        try:
            told, errors = _listen(process, request)
        except BaseException:
            process.kill()
            raise
    for line in told.splitlines():
        found.take(line)
    found.in_time = errors is not None
    if errors is None:
        found.notes.append(OUT_OF_TIME)
    elif process.returncode:
        last = (errors.decode(errors="replace").strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        found.notes.append(f"the process that measures failed: {last}")
    return found


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {**for_models(os.environ), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)


def _listen(process: subprocess.Popen[bytes], request: Request) -> tuple[bytes, bytes | None]:
    """(what it told, what it wrote to standard error or None where it had to be ended)."""
    began_s = time.monotonic()
    question: bytes | None = json.dumps(asdict(request)).encode()
    while True:
        try:
            return process.communicate(question, timeout=LOOK_S)
        except subprocess.TimeoutExpired as so_far:
            question = None  # communicate goes on with what it has sent
            elapsed_s = time.monotonic() - began_s
            if elapsed_s >= _end_s(request, so_far.stdout or b"", elapsed_s):
                process.kill()
                return process.communicate()[0], None


def _end_s(request: Request, told: bytes, elapsed_s: float) -> float:
    """When to end it; as long as it imports, later and later."""
    found = Found()
    for line in told.splitlines()[:5]:  # it begins with the start, and notes about it
        found.take(line)
    end_s = request.end_s(float(found.figures.get("ready", elapsed_s)))
    return min(LONGEST * request.limit_s, end_s) + MARGIN_S * min(1.0, request.limit_s)
