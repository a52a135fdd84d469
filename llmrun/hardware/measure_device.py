"""All figures of one device: the CPU, or a GPU and its link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from llmrun.errors import DeviceError
from llmrun.hardware.direct_io import BLOCK_BYTES, READERS
from llmrun.hardware.measure_compute import (
    COLUMNS,
    DTYPES,
    MATRIX_BYTES,
    attention_speed,
    memory_speed,
    torch_type,
    weight_speed,
)
from llmrun.hardware.measure_disk import Blocks, Readers, opened, touched
from llmrun.hardware.measure_layer import element_seconds, overheads
from llmrun.hardware.speeds import CPU, DeviceSpeed, LinkSpeed, Spread, ThreadSpeed
from llmrun.hardware.target import Target
from llmrun.hardware.timing import median_s, nothing, samples_s, spread
from llmrun.units import MIB

SHARES = {"BF16": 0.36, "F32": 0.12, "F16": 0.12, "memory": 0.1, "attention": 0.14, "layer": 0.08, "element": 0.08}
"""Of the time for a device. BF16 gets most: nearly all checkpoints are."""

PAGEABLE_BYTES, PINNED_BYTES, SMALL_BYTES = 32 * MIB, 64 * MIB, 64
MOST_SLOWDOWN = 3.0


@dataclass(frozen=True)
class Computed:
    """A device's figures, and what a token takes there beyond its layers."""

    device: DeviceSpeed
    token_s: float


def measure_device(target: Target, device: str, name: str, limit_s: float) -> Computed:
    """The figures that every device has, in about ``limit_s``; called in inference mode."""
    share = {part: share * limit_s for part, share in SHARES.items()}
    attention = attention_speed(target, "BF16", share["attention"])
    overhead = overheads(target, "BF16", share["layer"])
    found = DeviceSpeed(
        device=device,
        name=name,
        memory_bytes_per_s=memory_speed(target, share["memory"] / 2),
        weights=tuple(weight_speed(target, dtype, share[dtype]) for dtype in DTYPES),
        kv_bytes_per_s=attention.kv_bytes_per_s,
        attention_flops_per_s=attention.chunk_flops_per_s,
        layer_s=overhead.layer_s,
        element_s=element_seconds(target, "BF16", share["element"]),
        kv_flops_per_s=attention.kv_flops_per_s,
    )
    return Computed(found, overhead.token_s)


def measure_cpu(target: Target, name: str, limit_s: float) -> Computed:
    """The CPU with all of torch's threads, and how its memory speed grows with them."""
    computed = measure_device(target, CPU, name, limit_s)
    threads = thread_speeds(target, SHARES["memory"] / 2 * limit_s)
    return replace(computed, device=replace(computed.device, threads=threads))


def thread_speeds(target: Target, limit_s: float) -> tuple[ThreadSpeed, ...]:
    """Reading RAM with 1, 2, 4, ... and all threads that torch uses."""
    import torch

    most = torch.get_num_threads()
    counts = sorted({*(2**power for power in range(most.bit_length())), most})
    try:
        found = []
        for count in counts:
            torch.set_num_threads(count)
            found.append(ThreadSpeed(count, memory_speed(target, limit_s / len(counts), at_least=3).p50))
        return tuple(found)
    finally:
        torch.set_num_threads(most)


def reading_slowdown(target: Target, files: Sequence[Path], limit_s: float) -> float:
    """How much longer a product with weights in RAM takes while the disk is being read, at least 1.

    Raises:
        DeviceError: ``read-failed``.
    """
    import torch

    kind = torch_type("BF16")
    rows = min(MATRIX_BYTES, target.pool.nbytes // 2) // (COLUMNS * kind.itemsize)
    states, turn = target.numbers(kind, 1, COLUMNS), iter(range(1 << 62))
    memory = touched(READERS * BLOCK_BYTES)

    def product() -> None:
        torch.nn.functional.linear(states, target.matrix(kind, rows, COLUMNS, next(turn)))

    ratios = []
    with opened(files) as weights:
        for _ in range(3):
            alone_s = median_s(product, limit_s / 6)
            readers = Readers(Blocks(weights), memory, BLOCK_BYTES, READERS)
            try:
                ratios.append(median_s(product, limit_s / 6) / alone_s)
            finally:
                readers.stop()
    return min(MOST_SLOWDOWN, max(1.0, median(ratios)))


def measure_link(target: Target, pinned: bool, limit_s: float) -> LinkSpeed:
    """Copies between RAM and a GPU; where RAM cannot be pinned, the pageable figures stand for the pinned.

    Raises:
        DeviceError: ``device-memory``, the GPU has too little for it.
    """
    import torch

    if target.pool.nbytes < PINNED_BYTES:
        raise DeviceError("device-memory", f"{target.device} has no {PINNED_BYTES:,} bytes to copy to")

    def rates(nbytes: int, out: bool, lock: bool, share: float) -> Spread:
        there = target.pool[:nbytes]
        here = torch.ones(nbytes, dtype=torch.uint8, pin_memory=lock and pinned)
        source, goal = (there, here) if out else (here, there)
        found = samples_s(
            lambda: goal.copy_(source, non_blocking=lock and pinned),
            share * limit_s,
            at_least=5,
            synchronize=target.synchronize,
        )
        return spread([nbytes / seconds for seconds in found])

    return LinkSpeed(
        h2d_pinned_bytes_per_s=rates(PINNED_BYTES, False, True, 0.4),
        h2d_pageable_bytes_per_s=rates(PAGEABLE_BYTES, False, False, 0.2).p50,
        d2h_pinned_bytes_per_s=rates(PINNED_BYTES, True, True, 0.15).p50,
        d2h_pageable_bytes_per_s=rates(PAGEABLE_BYTES, True, False, 0.15).p50,
        latency_s=_latency_s(target, 0.1 * limit_s),
    )


def _latency_s(target: Target, limit_s: float) -> float:
    """A copy of a few bytes to the GPU that is waited for."""
    import torch

    few, there = torch.ones(SMALL_BYTES, dtype=torch.uint8), target.pool[:SMALL_BYTES]

    def copy() -> None:
        there.copy_(few)
        target.synchronize()

    return median_s(copy, limit_s, synchronize=nothing)
