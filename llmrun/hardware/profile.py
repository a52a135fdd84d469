"""What was found of the host, as frozen values that become JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from llmrun.hardware.speeds import Speeds

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Cpu:
    """The processor, and how much of it this process may run on."""

    name: str
    physical_cores: int
    logical_cores: int
    kernels: str = ""  # the instruction set of llmrun's own that are used, "torch" where none were built


@dataclass(frozen=True)
class MemoryLimit:
    """Something that bounds the RAM of a new process: ``available_bytes`` is what it leaves for one now."""

    name: str  # "physical memory", "control group /docker/1f", "ulimit -v"
    limit_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU; ``device`` is our name for it, the k-th that CUDA_VISIBLE_DEVICES shows being ``gpu:k``."""

    device: str
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int
    driver: str


@dataclass(frozen=True)
class Disk:
    """The file system under a path; ``None`` where the host does not tell."""

    path: str
    mount_point: str
    file_system: str
    device: str
    total_bytes: int
    free_bytes: int
    rotational: bool | None
    direct_io: bool | None


@dataclass(frozen=True)
class HardwareProfile:
    """The host as one process may use it. ``notes`` say what could not be found out, and why."""

    cpu: Cpu
    limits: tuple[MemoryLimit, ...]  # of RAM; the first is the physical memory
    gpus: tuple[Gpu, ...]
    disk: Disk | None
    notes: tuple[str, ...] = ()
    speeds: Speeds | None = None  # where they have been measured
    schema: int = SCHEMA_VERSION

    @property
    def binding(self) -> MemoryLimit:
        """The limit that leaves least."""
        return min(self.limits, key=lambda limit: limit.available_bytes)


def to_json(profile: HardwareProfile) -> str:
    """The profile as JSON text."""
    return json.dumps(asdict(profile), indent=2)
