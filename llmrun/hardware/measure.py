"""``measure``: how fast this host is, in a few seconds; and what stands in for a figure that cannot be had.

The disk is measured here, everything that needs torch in a process of its own (see ``measuring``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from llmrun.errors import LlmrunError, UsageError
from llmrun.hardware.asking import MARGIN_S, OUT_OF_TIME, Found, ask
from llmrun.hardware.device_figures import assemble_device
from llmrun.hardware.host_key import host_key
from llmrun.hardware.measure_disk import SMALLEST_SAMPLE_BYTES, checkpoint_files, measure_disk, sample_bytes
from llmrun.hardware.measuring import Request
from llmrun.hardware.others import BUSY_SHARE, busy_note, others_share
from llmrun.hardware.profile import HardwareProfile
from llmrun.hardware.speeds import CPU, DiskSpeed, LayerSpeed, OwnLayers, Speeds, Spread
from llmrun.hardware.target import POOL_BYTES
from llmrun.units import MIB, format_bytes

Notify = Callable[[str], None]
"""Takes one line about what goes on."""

DEFAULT_LIMIT_S = 10.0
LIMIT_VARIABLE = "LLMRUN_MEASURE_S"
DISK_SHARE, BRIEF_DISK_SHARE = 0.26, 0.24  # of the default limit, or of the limit where that is less

CAUTIOUS_DISK = DiskSpeed(Spread(100e6, 100e6, 100e6), 100e6, 0.01)
"""A hard disk's: a plan that keeps most in RAM is the right one where the disk is not known."""

FEWEST_POINTS = 2
"""One token and some; where there was no time for that the curve of one large matrix tells more."""

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
    path: Path,
    profile: HardwareProfile,
    *,
    limit_s: float = DEFAULT_LIMIT_S,
    own: OwnLayers | None = None,
    notify: Notify = lambda note: None,
) -> Speeds:
    """Measure this host, in at most ``limit_s`` where the imports take at most a quarter of it.

    Where they take longer, the figures still get 4.5 s (in proportion, of another limit), after imports that are waited
    for up to three times the limit.

    Args:
        path: the folder of the checkpoint, whose own bytes are read.
        profile: the host; the GPUs in it are measured where torch has CUDA.
        limit_s: a process that is not done by then is ended. What it told counts, the most decisive figures first;
            cautious ones stand for the rest.
        own: the checkpoint's layers, where they are to be measured as well.
        notify: told of what is measured.

    Every figure that could not be had is named in ``notes``, with what stands in for it.
    """
    began_s = time.monotonic()
    busy = busy_note(others_share())
    files = checkpoint_files(path)
    notify("measuring the disk")
    disk_s = (BRIEF_DISK_SHARE if own else DISK_SHARE) * min(limit_s, DEFAULT_LIMIT_S)
    disk, notes = _disk(files, path, disk_s, brief=own is not None)
    notify("measuring the processor" + (" and the GPUs" if profile.gpus else ""))
    request = Request(
        folder=str(path),
        files=tuple(map(str, files)) if disk is not CAUTIOUS_DISK else (),
        devices=(CPU, *(gpu.device for gpu in profile.gpus)),
        limit_s=limit_s,
        left_s=max(0.0, limit_s - (time.monotonic() - began_s) - MARGIN_S * min(1.0, limit_s)),
        pool_bytes=_pool_bytes(profile),
        own=(own,) if own else (),
    )
    found = ask(request)
    speeds = assemble(profile, disk, found, tuple(notes))
    if speeds.complete:  # then what the time did not suffice for is of no interest
        speeds = replace(speeds, notes=tuple(note for note in speeds.notes if note != OUT_OF_TIME))
    return replace(speeds, layers=_own_layers(found, request.own), notes=(*speeds.notes, *busy))


def measure_layers(
    path: Path, profile: HardwareProfile, own: Sequence[OwnLayers], limit_s: float
) -> tuple[LayerSpeed, ...]:
    """The checkpoint's own layers alone, in each of these ways, all of them in ``limit_s``."""
    request = Request(str(path), (), (), limit_s, limit_s, _pool_bytes(profile), tuple(own))
    return _own_layers(ask(request), request.own)


def _own_layers(found: Found, asked: Sequence[OwnLayers]) -> tuple[LayerSpeed, ...]:
    return tuple(speed for index, own in enumerate(asked) for speed in _own_layer(found, f"own.{index}.", own.shape))


def _own_layer(found: Found, path: str, shape: str) -> tuple[LayerSpeed, ...]:
    """One, without figures where they cannot be had, so that later runs do not ask again; none if asking may help."""
    own = {name.removeprefix(path): figure for name, figure in found.figures.items() if name.startswith(path)}
    points = sorted((int(name.removeprefix("seconds.")), own[name]) for name in own if name.startswith("seconds."))
    if len(points) < FEWEST_POINTS:
        may_help = not found.in_time or others_share() > BUSY_SHARE
        return () if may_help else (LayerSpeed(shape, int(own.get("nbytes", 1)), (), ()),)
    tokens, seconds = zip(*points, strict=True)
    past = own.get("token_past_s"), own.get("chunk_past_s")
    return (LayerSpeed(shape, own["nbytes"], tokens, seconds, *past, own.get("first_s", 0.0), own.get("rounding_s")),)


def cautious_speeds(profile: HardwareProfile, why: str) -> Speeds:
    """Speeds of which none was measured, and the reason."""
    return assemble(profile, CAUTIOUS_DISK, Found(), (why,))


def _disk(files: Sequence[Path], path: Path, limit_s: float, *, brief: bool) -> tuple[DiskSpeed, list[str]]:
    cautious = "taken as 100 MB/s"
    try:
        nbytes = sample_bytes(files)
        if nbytes < SMALLEST_SAMPLE_BYTES:
            what = f"only {format_bytes(nbytes)} of weights" if files else "no weights"
            return CAUTIOUS_DISK, [f"disk: there are {what} under {path} to read; {cautious}"]
        return measure_disk(files, limit_s, brief=brief), []
    except LlmrunError as error:
        return CAUTIOUS_DISK, [f"disk: {error.message}; {cautious}"]
    except OSError as error:
        return CAUTIOUS_DISK, [f"disk: {error.filename or path}: {error.strerror}; {cautious}"]


def _pool_bytes(profile: HardwareProfile) -> int:
    """A quarter of the RAM that is free, within reason: whole MiB, which hold whole matrices of every dtype."""
    return max(32 * MIB, min(POOL_BYTES, profile.binding.available_bytes // 4 // MIB * MIB))


def assemble(profile: HardwareProfile, disk: DiskSpeed, found: Found, notes: Sequence[str]) -> Speeds:
    """All of it, cautious figures where there are none.

    It is complete, and kept for the next run, where the disk was measured and what decides of every device that did
    not fail; whatever else ran out of time.
    """
    names = {CPU: profile.cpu.name} | {gpu.device: gpu.name for gpu in profile.gpus}
    devices = [assemble_device(device, name, found.figures) for device, name in names.items()]
    startup_s, token_s, slowdown = (found.figures.get(path) for path in ("start", "cpu.token_s", "cpu.slowdown"))
    return Speeds(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        host=host_key(profile),
        disk=disk,
        devices=tuple(device.speed for device in devices if device.speed),
        reading_slowdown=slowdown or CAUTIOUS_SLOWDOWN,
        startup_s=startup_s or CAUTIOUS_START_S,
        startup_bytes=found.figures.get("start_bytes", 0),
        token_s=token_s or CAUTIOUS_TOKEN_S,
        notes=(*notes, *found.notes, *(note for device in devices for note in device.notes), *_stand_ins(found)),
        complete=disk is not CAUTIOUS_DISK and all(device.complete for device in devices),
    )


def _stand_ins(found: Found) -> Iterator[str]:
    """What is missing besides the devices; where nothing is known of the processor, the note about it says enough."""
    if "start" not in found.figures:
        yield f"start: not measured; {CAUTIOUS_START_S:.0f} s stand in"
    if any(path.startswith(f"{CPU}.") for path in found.figures):
        if "cpu.token_s" not in found.figures:
            yield f"token: not measured; {CAUTIOUS_TOKEN_S * 1e3:.0f} ms beside its layers stand in"
        if "cpu.slowdown" not in found.figures:
            yield f"reading beside computing: not measured; {CAUTIOUS_SLOWDOWN:g} times as long stands in"
