"""Hosts and speeds that exist only as numbers."""

from dataclasses import replace
from pathlib import Path

from llmrun.hardware import Cpu, Gpu, HardwareProfile, MemoryLimit
from llmrun.hardware.speeds import DeviceSpeed, DiskSpeed, LinkSpeed, Speeds, Spread, ThreadSpeed, WeightSpeed
from llmrun.units import GIB, MIB

HOST = HardwareProfile(
    Cpu("a processor", 2, 4),
    (MemoryLimit("physical memory", 16 * GIB, 12 * GIB),),
    (Gpu("gpu:0", "a GPU", "GPU-1", 8 * GIB, 7 * GIB, "1.0"),),
    None,
)
CPU_SPEED = DeviceSpeed(
    "cpu",
    "a processor",
    Spread(2e10, 3e10, 4e10),
    (WeightSpeed("BF16", (1, 512), (2e10, 1e9)),),
    kv_bytes_per_s=5e9,
    attention_flops_per_s=9e10,
    layer_s=2e-4,
    element_s=1e-9,
    threads=(ThreadSpeed(1, 2e10), ThreadSpeed(2, 3e10)),
    kv_flops_per_s=5e9,
)
GPU_SPEED = DeviceSpeed(
    "gpu:0",
    "a GPU",
    Spread(4e11, 4e11, 4e11),
    (WeightSpeed("BF16", (1, 2), (3e11, 3e11)),),
    kv_bytes_per_s=2e11,
    attention_flops_per_s=1e13,
    layer_s=2e-4,
    element_s=1e-10,
    link=LinkSpeed(Spread(1e10, 1.1e10, 1.2e10), 5e9, 1e10, 4e9, 1e-5),
)
SPEEDS = Speeds(
    "2026-01-01T00:00:00+00:00",
    "somewhere",
    DiskSpeed(Spread(1e9, 2e9, 3e9), 1e9, 1e-4),
    (CPU_SPEED, GPU_SPEED),
    reading_slowdown=1.2,
    startup_s=2.5,
    token_s=1e-3,
)


def speeds(n_gpus: int = 0) -> Speeds:
    """What was measured of a host with so many GPUs, all alike."""
    gpus = tuple(replace(GPU_SPEED, device=f"gpu:{k}") for k in range(n_gpus))
    return replace(SPEEDS, devices=(CPU_SPEED, *gpus))


def weights_folder(folder: Path, nbytes: int = 70 * MIB) -> Path:
    """A folder with one safetensors file of so many bytes that take no room: a hole."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(nbytes)
    return folder
