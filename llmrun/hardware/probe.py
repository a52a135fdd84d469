"""Look at the host: processor, memory and what limits it, GPUs, disk. Nothing is measured here."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from llmrun.hardware.cgroup import memory_limits
from llmrun.hardware.disk import probe_disk
from llmrun.hardware.gpu import find_gpus
from llmrun.hardware.profile import Cpu, HardwareProfile, MemoryLimit
from llmrun.kernels.library import kernels_variant

PHYSICAL = "physical memory"


def probe(path: Path | None = None) -> HardwareProfile:
    """The host as this process may use it; ``path`` is where the models lie (its disk is looked at)."""
    gpus, gpu_note = find_gpus()
    disk = probe_disk(path) if path else None
    notes = [gpu_note] if gpu_note else []
    if path and disk is None:
        notes.append(f"the disk under {path} cannot be looked at")
    memory = psutil.virtual_memory()
    physical = MemoryLimit(PHYSICAL, memory.total, memory.available)
    return HardwareProfile(_cpu(), (physical, *memory_limits(), *_ulimits()), gpus, disk, tuple(notes))


def _cpu() -> Cpu:
    usable = _usable_cpus()
    siblings = {_siblings(cpu) for cpu in usable}
    return Cpu(_cpu_name(), physical_cores=len(siblings), logical_cores=len(usable), kernels=kernels_variant())


def _usable_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _siblings(cpu: int) -> str:
    """The logical processors that share a core with ``cpu``, as the kernel writes them; ``cpu`` alone if unknown."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _ulimits() -> tuple[MemoryLimit, ...]:
    """Limits of the shell on address space and data; a new process starts with all of them unused."""
    try:
        import resource
    except ImportError:
        return ()
    limits = []
    for name, kind in (("ulimit -v", resource.RLIMIT_AS), ("ulimit -d", resource.RLIMIT_DATA)):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(MemoryLimit(name, soft, soft))
    return tuple(limits)
