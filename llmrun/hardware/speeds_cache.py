"""Measured speeds in the user's cache folder, one file for each host and disk.

A control group's limit on the disk cannot be seen: who runs llmrun under different ones sets LLMRUN_CACHE for each, or
measures again (``llmrun inspect --measure --refresh``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from uuid import uuid4

from llmrun.hardware.disk import probe_disk
from llmrun.hardware.host_key import fixed_parts, host_key
from llmrun.hardware.others import BUSY
from llmrun.hardware.profile import HardwareProfile
from llmrun.hardware.speeds import OwnLayers, Speeds
from llmrun.settings import cache_folder

SCHEMA_VERSION = 2

FEW_NOTES = 2
"""Of what could not be measured; more are no help to who only wants an answer."""

Notify = Callable[[str], None]


def cached_speeds(profile: HardwareProfile, notify: Notify = lambda note: None) -> Speeds | None:
    """What was measured on this host and disk; torch is not imported.

    Args:
        profile: the host, with the disk that holds the checkpoint.
        notify: told why figures that are there are not used: another torch, another llmrun, a broken file.
    """
    path = cache_path(profile)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    try:
        value = json.loads(text)
        schema, host = value["schema"], value["speeds"]["host"]
    except (ValueError, KeyError, TypeError, RecursionError):
        notify(f"the measured speeds in {path} cannot be read, so they are not used")
        return None
    if schema != SCHEMA_VERSION:
        notify("the measured speeds are of another version of llmrun, so they are not used")
        return None
    if host != host_key(profile):
        notify("the speeds measured before are of another host, or of other versions here, so they are not used")
        return None
    return _checked(value, profile, path, notify)


def _checked(value: dict[str, object], profile: HardwareProfile, path: Path, notify: Notify) -> Speeds | None:
    """The same checks as of a hardware file: this file may have been edited too."""
    from llmrun.errors import UsageError
    from llmrun.hardware.hardware_file import parse_hardware

    whole = asdict(replace(profile, speeds=None)) | {"speeds": value["speeds"]}
    try:
        return parse_hardware(json.dumps(whole), str(path)).speeds
    except UsageError as error:
        notify(f"the measured speeds are not used: {error.message}")
        return None


def store_speeds(profile: HardwareProfile, speeds: Speeds) -> bool:
    """Keep them for the next run, in one step; False where the cache folder cannot be written."""
    path = cache_path(profile)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"schema": SCHEMA_VERSION, "speeds": asdict(speeds)}, indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        return False
    return True


def speeds_for(profile: HardwareProfile, checkpoint_folder: Path, notify: Notify, *own: OwnLayers) -> Speeds:
    """The speeds to plan a run with: cached, else measured once and kept.

    Args:
        profile: the host; its disk is looked at here, under the checkpoint.
        checkpoint_folder: whose bytes are read.
        notify: told that this host is being measured, and what could not be.
        own: the checkpoint's layers, in each way that they may be computed; measured too the first time.

    Nothing is measured for a model that is too small for its speed to depend on a plan, nor with LLMRUN_MEASURE_S=0.
    """
    from llmrun.hardware.measure import cautious_speeds

    profile = with_disk(profile, checkpoint_folder)
    if speeds := cached_speeds(profile, notify):
        return with_layers(speeds, profile, checkpoint_folder, notify, *own)
    if is_too_small(checkpoint_folder):
        return cautious_speeds(profile, "nothing was measured: the model is too small for its place to matter")
    speeds = measure_once(profile, checkpoint_folder, notify, own[0] if own else None)
    for note in in_brief(speeds.notes):
        notify(note)
    return with_layers(speeds, profile, checkpoint_folder, notify, *own[1:])


def in_brief(notes: Sequence[str]) -> Sequence[str]:
    """The notes where they are few; else how many, and of what they are the consequence."""
    if len(notes) <= FEW_NOTES:
        return notes
    cause = next((note for note in notes if note.startswith(BUSY)), "")
    rest = len(notes) - bool(cause)
    said = f"{rest} figures are missing, cautious ones stand in; `llmrun inspect --refresh` tells which"
    return (said, cause) if cause else (said,)


def with_layers(
    speeds: Speeds,
    profile: HardwareProfile,
    folder: Path,
    notify: Notify,
    *own: OwnLayers,
    whose: str = "this model's layers",
) -> Speeds:
    """The speeds with those of these layers, measured now, all in one go, if it is the first time that they are run."""
    from llmrun.hardware.measure import limit_seconds, measure_layers

    limit_s = limit_seconds()
    unknown = [each for each in own if not _is_known(speeds, each.shape)]
    if not unknown or not limit_s or is_too_small(folder):
        return speeds
    notify(f"measuring {whose} once, at most {limit_s:g} s")
    speeds = replace(speeds, layers=(*speeds.layers, *measure_layers(folder, profile, unknown, limit_s)))
    if speeds.complete:
        store_speeds(profile, speeds)
    return speeds


def _is_known(speeds: Speeds, shape: str) -> bool:
    """Also where it is known that they cannot be measured."""
    return any(layer.shape == shape for layer in speeds.layers)


def measure_once(profile: HardwareProfile, folder: Path, notify: Notify, own: OwnLayers | None = None) -> Speeds:
    """Measure, tell so, and keep the figures where they are whole; their ``notes`` say what could not be measured.

    Args:
        profile: the host, with the disk that holds ``folder``.
        folder: the checkpoint whose bytes are read.
        notify: told that this takes some seconds.
    """
    from llmrun.hardware.measure import cautious_speeds, limit_seconds, measure

    limit_s = limit_seconds()
    if limit_s == 0:
        return cautious_speeds(profile, "nothing was measured: LLMRUN_MEASURE_S is 0")
    notify(f"measuring this machine once, at most {limit_s:g} s")
    speeds = measure(folder, profile, limit_s=limit_s, own=own)
    if speeds.complete and not store_speeds(profile, speeds):
        notify(f"the measured speeds cannot be kept in {cache_path(profile).parent}")
    return speeds


def is_too_small(folder: Path) -> bool:
    """Whether a checkpoint has so few bytes that nothing is to be learnt from reading it."""
    from llmrun.hardware.measure_disk import SMALLEST_SAMPLE_BYTES, checkpoint_files, sample_bytes

    try:
        return sample_bytes(checkpoint_files(folder)) < SMALLEST_SAMPLE_BYTES
    except OSError:
        return True


def with_disk(profile: HardwareProfile, folder: Path, *, try_direct: bool = True) -> HardwareProfile:
    """The profile with the disk that holds the checkpoint; shards that are links are on the disk they lead to.

    Without ``try_direct`` nothing is written there.
    """
    from llmrun.hardware.measure_disk import checkpoint_files

    files = checkpoint_files(folder)
    return replace(profile, disk=probe_disk(files[0].parent if files else folder, try_direct=try_direct))


def cache_path(profile: HardwareProfile) -> Path:
    """The file for this host and disk, whatever torch and llmrun are installed on it."""
    name = hashlib.sha256("; ".join(fixed_parts(profile)).encode()).hexdigest()[:16]
    return cache_folder() / "speeds" / f"{name}.json"
