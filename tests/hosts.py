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


def _device_figures(device: str) -> dict[str, object]:
    """All that the process that measures tells of a device."""
    spread = {"p10": 2e10, "p50": 3e10, "p90": 4e10}
    points = {"BF16": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), "F16": (1, 16, 512), "F32": (1, 16, 512)}
    curves = {f"weights.{dtype}.{n}": 2e10 / (1 + n / 20) for dtype, counts in points.items() for n in counts}
    rates = dict.fromkeys(("kv_bytes_per_s", "kv_flops_per_s", "attention_flops_per_s"), 5e9)
    own = {**curves, **rates, "layer_s": 2e-4, "token_s": 1e-3, "element_s": 1e-9, "memory": spread}
    if device == "cpu":
        own |= {"slowdown": 1.2, "threads.1": 2e10, "threads.2": 3e10}
    else:
        paths = ("h2d_pageable_bytes_per_s", "d2h_pinned_bytes_per_s", "d2h_pageable_bytes_per_s")
        own["link"] = {"h2d_pinned_bytes_per_s": spread, **dict.fromkeys(paths, 5e9), "latency_s": 1e-5}
    return {f"{device}.{name}": figure for name, figure in own.items()}


FIGURES = {"start": 2.5, **_device_figures("cpu"), **_device_figures("gpu:0")}
"""By path, as that process tells them."""
