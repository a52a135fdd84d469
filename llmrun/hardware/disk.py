"""The file system under a path: where it is mounted, how full it is, and whether direct I/O works on it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil

from llmrun.hardware.profile import Disk


def probe_disk(path: Path, *, try_direct: bool = True) -> Disk | None:
    """The disk under ``path``, or under its nearest parent that exists; ``None`` if it cannot be looked at.

    ``try_direct``: whether direct I/O may be tried out, for which a file is made there and removed.
    """
    folder = path.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    folder = folder.resolve()
    try:
        usage = psutil.disk_usage(str(folder))
        device_number = folder.stat().st_dev
    except OSError:
        return None
    mount_point, file_system, device = _mount(folder)
    return Disk(
        path=str(path.absolute()),
        mount_point=mount_point,
        file_system=file_system,
        device=device,
        total_bytes=usage.total,
        free_bytes=usage.free,
        rotational=_is_rotational(device_number),
        direct_io=opens_direct(folder) if try_direct else None,
    )


def opens_direct(folder: Path) -> bool | None:
    """Whether files there open for direct I/O; ``None`` if that cannot be tried (no right to write, no such thing)."""
    flag = getattr(os, "O_DIRECT", None)
    if flag is None:
        return None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".llmrun-probe-") as file:
            return _opens(file.name, os.O_RDONLY | flag)
    except OSError:
        return None


def _opens(name: str, flags: int) -> bool:
    try:
        os.close(os.open(name, flags))
    except OSError:
        return False
    return True


def _mount(folder: Path) -> tuple[str, str, str]:
    """(mount point, file system, device) of the closest mount above ``folder``."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        mounts = []
    above = [mount for mount in mounts if folder.is_relative_to(mount.mountpoint)]
    if not above:
        return folder.anchor, "unknown", "unknown"
    closest = max(enumerate(above), key=lambda item: (len(item[1].mountpoint), item[0]))[1]  # the last mount covers
    return closest.mountpoint, closest.fstype, closest.device


def _is_rotational(device_number: int) -> bool | None:
    node = Path(f"/sys/dev/block/{os.major(device_number)}:{os.minor(device_number)}") if hasattr(os, "major") else None
    if node is None or not node.exists():
        return None
    disk = node.resolve()  # a partition's folder lies in that of its disk
    for folder in (disk, disk.parent):
        try:
            return (folder / "queue/rotational").read_text().strip() == "1"
        except OSError:
            continue
    return None
