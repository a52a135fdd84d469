"""What must be the same for measured speeds to hold."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from llmrun.hardware.profile import HardwareProfile
from llmrun.units import GIB

MEASURING_VERSION = 8
"""Of what is measured and how; raised whenever figures of before no longer compare."""


def host_key(profile: HardwareProfile) -> str:
    """One line: processor and cores that may be used, RAM, GPUs, disk, torch, kernels, the way of measuring.

    A limit that a control group puts on the disk cannot be seen, so it is not in here.
    """
    kernels = profile.cpu.kernels or "unknown"
    computing = (f"torch {_torch_version()}", f"kernels {kernels}", f"measuring {MEASURING_VERSION}")
    parts = [*fixed_parts(profile), *computing]
    return "; ".join(parts)


def fixed_parts(profile: HardwareProfile) -> tuple[str, ...]:
    """The hardware alone, whatever is installed on it."""
    cpu = profile.cpu
    ram_gib = round(profile.limits[0].limit_bytes / GIB) if profile.limits else 0
    disk = profile.disk
    return (
        f"{cpu.name}, {cpu.physical_cores} cores, {cpu.logical_cores} threads",
        f"{ram_gib} GiB of RAM",
        *(f"{gpu.device} {gpu.name} {gpu.uuid}" for gpu in profile.gpus),
        f"{disk.device} at {disk.mount_point}" if disk else "disk unknown",
    )


def _torch_version() -> str:
    """From the package's metadata: importing torch takes a second."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return "none"
