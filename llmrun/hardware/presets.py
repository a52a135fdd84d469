"""Typical machines, from a few figures of data sheets each (``presets.toml``).

What is reached of a peak is an estimate, the same for all: these profiles say what to expect of a kind of machine, a
measured one says what a machine does.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from llmrun.hardware.profile import Cpu, Disk, Gpu, HardwareProfile, MemoryLimit
from llmrun.hardware.speeds import CPU, DeviceSpeed, DiskSpeed, LinkSpeed, Speeds, Spread, WeightSpeed
from llmrun.units import GIB, TIB

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

MEMORY_REACHED = {CPU: 0.7, "gpu": 0.85}
"""Of a peak memory bandwidth, by a product with one token."""

FLOPS_REACHED = 0.5
"""Of a peak rate, by a product with hundreds of tokens."""

DISK_REACHED, SINGLE_REACHED = 0.85, 0.6
"""Of sequential reading as data sheets have it: with four requests of 16 MiB in flight, and with one."""

CPU_KV_FLOPS_PER_CORE = 2.5e9
"""Attention of one BF16 query, for which torch 2.13 has no fast kernel; measured on a Zen 5 core."""

ELEMENT_BYTES = 50
"""Moved for each token and element of (hidden + intermediate size); measured on the same machine."""

FREE_SHARE = 0.9
"""Of the memory, before llmrun starts."""

SLOWDOWN = 1.2
MEASURED_AT = "2026-01-01T00:00:00+00:00"  # when the data sheets were read; nothing was measured


def preset_names() -> tuple[str, ...]:
    """The names of all presets."""
    return tuple(_table())


def preset(name: str) -> HardwareProfile:
    """The profile of a typical machine.

    Raises:
        KeyError: there is none of that name.
    """
    machine = _table()[name]
    ram_bytes = machine["ram_gib"] * GIB
    gpus = tuple(
        Gpu(f"gpu:{k}", gpu["name"], f"preset-{k}", nbytes := gpu["memory_gib"] * GIB, int(nbytes * FREE_SHARE), "")
        for k, gpu in enumerate(machine.get("gpus", ()))
    )
    return HardwareProfile(
        cpu=Cpu(machine["cpu"], machine["cores"], machine["threads"]),
        limits=(MemoryLimit("physical memory", ram_bytes, int(ram_bytes * FREE_SHARE)),),
        gpus=gpus,
        disk=Disk("/", "/", "ext4", machine["disk"], TIB, TIB // 2, rotational=False, direct_io=True),
        notes=(f"the preset {name}: nothing was measured", *machine["sources"]),
        speeds=_speeds(name, machine),
    )


def _speeds(name: str, machine: dict[str, Any]) -> Speeds:
    disk_bytes_per_s = machine["disk_mb_s"] * 1e6
    return Speeds(
        measured_at=MEASURED_AT,
        host=f"preset {name}",
        disk=DiskSpeed(
            bytes_per_s=_around(disk_bytes_per_s * DISK_REACHED),
            single_bytes_per_s=disk_bytes_per_s * SINGLE_REACHED,
            request_s=machine["disk_page_us"] * 1e-6,
        ),
        devices=(_cpu(machine), *(_gpu(k, gpu) for k, gpu in enumerate(machine.get("gpus", ())))),
        reading_slowdown=SLOWDOWN,
        startup_s=machine["start_s"],
        token_s=machine["token_us"] * 1e-6,
        notes=("estimated from data sheets, not measured",),
    )


def _cpu(machine: dict[str, Any]) -> DeviceSpeed:
    memory = machine["memory_gb_s"] * 1e9 * MEMORY_REACHED[CPU]
    f32 = machine["f32_gflop_s"] * 1e9 * FLOPS_REACHED
    bf16 = machine.get("bf16_gflop_s", machine["f32_gflop_s"]) * 1e9 * FLOPS_REACHED
    return DeviceSpeed(
        device=CPU,
        name=machine["cpu"],
        memory_bytes_per_s=_around(memory),
        # F16 has no fast products on CPUs but the newest: a tenth
        weights=(curve("BF16", 2, memory, bf16), curve("F16", 2, memory, f32 / 10), curve("F32", 4, memory, f32)),
        kv_bytes_per_s=memory / 2,
        attention_flops_per_s=f32 / 2,
        layer_s=machine["layer_us"] * 1e-6,
        element_s=ELEMENT_BYTES / memory,
        kv_flops_per_s=CPU_KV_FLOPS_PER_CORE * machine["cores"],
    )


def _gpu(index: int, gpu: dict[str, Any]) -> DeviceSpeed:
    memory = gpu["memory_gb_s"] * 1e9 * MEMORY_REACHED["gpu"]
    half, whole = (gpu[f"{kind}_tflop_s"] * 1e12 * FLOPS_REACHED for kind in ("bf16", "f32"))
    link = gpu["link_gb_s"] * 1e9
    return DeviceSpeed(
        device=f"gpu:{index}",
        name=gpu["name"],
        memory_bytes_per_s=_around(memory),
        weights=(curve("BF16", 2, memory, half), curve("F16", 2, memory, half), curve("F32", 4, memory, whole)),
        kv_bytes_per_s=memory / 2,
        attention_flops_per_s=half / 2,
        layer_s=gpu["layer_us"] * 1e-6,
        element_s=ELEMENT_BYTES / memory,
        link=LinkSpeed(_around(link), link / 3, link, link / 3, latency_s=20e-6),
    )


def curve(dtype: str, item_bytes: int, memory_bytes_per_s: float, flops_per_s: float) -> WeightSpeed:
    """Weight bytes a second for t tokens, the roofline: min(memory bandwidth, rate x bytes a weight / 2 t)."""
    rates = (min(memory_bytes_per_s, flops_per_s * item_bytes / (2 * tokens)) for tokens in TOKENS)
    return WeightSpeed(dtype, TOKENS, tuple(rates))


def _around(p50: float) -> Spread:
    return Spread(p50 * 0.9, p50, p50 * 1.05)


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files("llmrun.hardware") / "presets.toml").read_text(encoding="utf-8"))
