"""Memory limits of Linux control groups, versions 1 and 2.

A process is bounded by its own group and by every group above it. The page cache is charged to a group, but the kernel
gives it up under pressure; so what a limit leaves is the limit less what cannot be given up.
See https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llmrun.hardware.profile import MemoryLimit

_UNLIMITED = 2**60  # version 1 writes "no limit" as a number near 2**63


@dataclass(frozen=True)
class _Version:
    """Where a version of the interface keeps its limits, and which counters of memory.stat cannot be reclaimed."""

    file_system: str
    limit_files: tuple[str, ...]
    kept: tuple[str, ...]


# shared memory is counted as kept: it could go only to swap
_V1 = _Version("cgroup", ("memory.limit_in_bytes",), ("total_rss", "total_shmem"))
_V2 = _Version(
    "cgroup2",
    ("memory.max", "memory.high"),
    ("anon", "shmem", "slab_unreclaimable", "kernel_stack", "pagetables", "percpu", "sock"),
)


def memory_limits(root: Path = Path("/")) -> tuple[MemoryLimit, ...]:
    """The limits that the control groups of this process put on its memory, the closest group first.

    Args:
        root: the folder that holds ``proc`` and ``sys``. Empty result where there are no control groups.
    """
    limits: list[MemoryLimit] = []
    groups = _own_groups(root)
    for mounted_root, mount_point, version in _mounts(root):
        own = groups.get(version)
        if own is not None:
            limits += _limits_upwards(root / mount_point.lstrip("/"), _below(own, mounted_root), version)
    return tuple(limits)


def _own_groups(root: Path) -> dict[_Version, str]:
    """The group of this process in the memory hierarchy of each version; lines are ``id:controllers:path``."""
    groups: dict[_Version, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            groups[_V2] = path
        elif "memory" in controllers.split(","):
            groups[_V1] = path
    return groups


def _mounts(root: Path) -> list[tuple[str, str, _Version]]:
    """(group at the root of the mount, mount point, version) of the hierarchies that may limit memory.

    A line of mountinfo: ``35 31 0:32 /group /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory``.
    """
    found = []
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, source = line.partition(" - ")
        fields, source_fields = mount.split(), source.split()
        if len(fields) < 5 or len(source_fields) < 3:
            continue
        if source_fields[0] == _V2.file_system:
            found.append((fields[3], fields[4], _V2))
        elif source_fields[0] == _V1.file_system and "memory" in source_fields[2].split(","):
            found.append((fields[3], fields[4], _V1))
    return found


def _below(group: str, mounted_root: str) -> PurePosixPath:
    """The group's path under the mount point: in a container the mount shows only a part of the tree."""
    path, top = PurePosixPath(group), PurePosixPath(mounted_root)
    return path.relative_to(top) if path.is_relative_to(top) else PurePosixPath(path.relative_to("/"))


def _limits_upwards(mount: Path, group: PurePosixPath, version: _Version) -> list[MemoryLimit]:
    limits = []
    for level in (group, *group.parents):
        folder = mount / level
        values = [_number(folder / name) for name in version.limit_files]
        known = [value for value in values if value is not None and value < _UNLIMITED]
        if known:
            available = max(0, min(known) - _kept_bytes(folder, version))
            limits.append(MemoryLimit(f"control group /{'' if str(level) == '.' else level}", min(known), available))
        if str(level) == ".":
            break
    return limits


def _kept_bytes(folder: Path, version: _Version) -> int:
    total = 0
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name in version.kept and value.strip().isdigit():
            total += int(value)
    return total


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
