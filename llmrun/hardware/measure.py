"""``measure``: how fast this host is, in a few seconds; and what stands in for a figure that cannot be had.

The disk is measured here, everything that needs torch in a process of its own (see ``measuring``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from llmrun.errors import LlmrunError, UsageError
from llmrun.hardware.host_key import host_key
from llmrun.hardware.measure_disk import SMALLEST_SAMPLE_BYTES, checkpoint_files, measure_disk, sample_bytes
from llmrun.hardware.measuring import Request
from llmrun.hardware.profile import HardwareProfile
from llmrun.hardware.speeds import CPU, DeviceSpeed, DiskSpeed, Speeds, Spread, WeightSpeed
from llmrun.hardware.target import POOL_BYTES
from llmrun.units import MIB, format_bytes

Notify = Callable[[str], None]
"""Takes one line about what goes on."""

DEFAULT_LIMIT_S = 10.0
LIMIT_VARIABLE = "LLMRUN_MEASURE_S"
DISK_SHARE = 0.24  # of the default limit, or of the limit where that is less
OUT_OF_TIME = f"measuring did not end in time; `{LIMIT_VARIABLE}=30 llmrun inspect --measure` gives it more"
MARGIN_S = 0.3  # of the limit: for the interpreter to start and to end

CAUTIOUS_DISK = DiskSpeed(Spread(100e6, 100e6, 100e6), 100e6, 0.01)
"""A hard disk's: a plan that keeps most in RAM is the right one where the disk is not known."""

CAUTIOUS_CPU = DeviceSpeed(
    device=CPU,
    name="not measured",
    memory_bytes_per_s=Spread(8e9, 8e9, 8e9),  # one channel of DDR4 less a third
    weights=tuple(WeightSpeed(dtype, (1, 512), (5e9, 5e7)) for dtype in ("BF16", "F16", "F32")),
    kv_bytes_per_s=1e9,
    attention_flops_per_s=2e10,
    layer_s=0.001,
    element_s=5e-9,
    kv_flops_per_s=2e9,
)
CAUTIOUS_START_S = 10.0
CAUTIOUS_TOKEN_S = 0.005
CAUTIOUS_SLOWDOWN = 1.5


def limit_seconds(env: Mapping[str, str] = os.environ) -> float:
    """The time that measuring may take: ``LLMRUN_MEASURE_S``, else 10; with 0 nothing is measured.

    Raises:
        UsageError: ``bad-option``, the variable is no number of seconds.
    """
    text = env.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT_S)
    try:
        limit_s = float(text)
    except ValueError:
        limit_s = -1.0
    if not 0 <= limit_s <= 3600:
        raise UsageError(
            "bad-option",
            f"{LIMIT_VARIABLE}={text} is not a number of seconds from 0 to 3600",
            hint=f"unset {LIMIT_VARIABLE}, or try 20 for a slow machine",
        )
    return limit_s


def measure(
    path: Path, profile: HardwareProfile, *, limit_s: float = DEFAULT_LIMIT_S, notify: Notify = lambda note: None
) -> Speeds:
    """Measure this host in about ``limit_s``.

    Args:
        path: the folder of the checkpoint, whose own bytes are read.
        profile: the host; the GPUs in it are measured where torch has CUDA.
        limit_s: a process that is not done by then is ended, and cautious figures stand for the rest.
        notify: told of what is measured.

    Every figure that could not be had is named in ``notes``, with what stands in for it.
    """
    began_s = time.monotonic()
    files = checkpoint_files(path)
    notify("measuring the disk")
    disk, notes = _disk(files, path, DISK_SHARE * min(limit_s, DEFAULT_LIMIT_S))
    notify("measuring the processor" + (" and the GPUs" if profile.gpus else ""))
    request = Request(
        folder=str(path),
        files=tuple(map(str, files)) if disk is not CAUTIOUS_DISK else (),
        cpu=profile.cpu.name,
        gpus=tuple((gpu.device, gpu.name) for gpu in profile.gpus),
        limit_s=max(0.0, limit_s - (time.monotonic() - began_s) - MARGIN_S * min(1.0, limit_s)),
        pool_bytes=_pool_bytes(profile),
    )
    found = ask(request, began_s + limit_s - time.monotonic())
    return assemble(profile, disk, found, tuple(notes))


def cautious_speeds(profile: HardwareProfile, why: str) -> Speeds:
    """Speeds of which none was measured, and the reason."""
    return assemble(profile, CAUTIOUS_DISK, Found(notes=[why]), ())


@dataclass
class Found:
    """What the process told before it ended."""

    start_s: float | None = None
    token_s: float | None = None
    slowdown: float | None = None
    devices: list[DeviceSpeed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    in_time: bool = True

    def take(self, part: str, value: Any) -> None:  # noqa: ANN401
        """One line of it."""
        if part == "start":
            self.start_s = float(value)
        elif part == "token":
            self.token_s = float(value)
        elif part == "slowdown":
            self.slowdown = float(value)
        elif part == "device":
            self.devices.append(TypeAdapter(DeviceSpeed).validate_python(value))
        else:
            self.notes.append(str(value))


def ask(request: Request, limit_s: float, command: Sequence[str] = ()) -> Found:
    """What a process that measures finds before ``limit_s`` are over."""
    found = Found()
    text, trouble = _run(command or (sys.executable, "-m", "llmrun.hardware.measuring"), request, limit_s)
    found.in_time = trouble != OUT_OF_TIME
    for line in text.splitlines():
        try:
            answer = json.loads(line)
            found.take(answer["part"], answer["value"])
        except (ValueError, KeyError, TypeError):  # something else that was printed, or the half of a line
            continue
    if trouble:
        found.notes.append(trouble)
    return found


def _run(command: Sequence[str], request: Request, limit_s: float) -> tuple[str, str | None]:
    """(standard output, what went wrong)."""
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(asdict(request)).encode(),
            capture_output=True,
            env={**os.environ, **quiet},
            timeout=max(0.1, limit_s),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace"), OUT_OF_TIME
    except OSError as error:
        return "", f"the process that measures could not be started: {error.strerror}"
    text = done.stdout.decode(errors="replace")
    if done.returncode == 0:
        return text, None
    last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return text, f"the process that measures failed: {last}"


def _disk(files: Sequence[Path], path: Path, limit_s: float) -> tuple[DiskSpeed, list[str]]:
    cautious = "taken as 100 MB/s"
    try:
        nbytes = sample_bytes(files)
        if nbytes < SMALLEST_SAMPLE_BYTES:
            what = f"only {format_bytes(nbytes)} of weights" if files else "no weights"
            return CAUTIOUS_DISK, [f"disk: there are {what} under {path} to read; {cautious}"]
        return measure_disk(files, limit_s), []
    except LlmrunError as error:
        return CAUTIOUS_DISK, [f"disk: {error.message}; {cautious}"]
    except OSError as error:
        return CAUTIOUS_DISK, [f"disk: {error.filename or path}: {error.strerror}; {cautious}"]


def _pool_bytes(profile: HardwareProfile) -> int:
    """A quarter of the RAM that is free, within reason: whole MiB, which hold whole matrices of every dtype."""
    return max(32 * MIB, min(POOL_BYTES, profile.binding.available_bytes // 4 // MIB * MIB))


def assemble(profile: HardwareProfile, disk: DiskSpeed, found: Found, notes: Sequence[str]) -> Speeds:
    """All of it, cautious figures where there are none."""
    notes = [*notes, *found.notes]
    devices = found.devices
    if not any(device.device == CPU for device in devices):
        notes.append("processor: not measured; 5 GB/s of weights for a token stand in")
        devices = [replace(CAUTIOUS_CPU, name=profile.cpu.name), *devices]
    missing = [gpu.device for gpu in profile.gpus if gpu.device not in {device.device for device in devices}]
    if missing and not any(device in note for device in missing for note in notes):
        notes.append(f"{', '.join(missing)}: not measured, and not planned with")
    if found.start_s is None:
        notes.append(f"start: not measured; {CAUTIOUS_START_S:.0f} s stand in")
    return Speeds(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        host=host_key(profile),
        disk=disk,
        devices=tuple(devices),
        reading_slowdown=found.slowdown or CAUTIOUS_SLOWDOWN,
        startup_s=found.start_s or CAUTIOUS_START_S,
        token_s=found.token_s or CAUTIOUS_TOKEN_S,
        notes=tuple(notes),
        complete=found.in_time and disk is not CAUTIOUS_DISK,
    )
