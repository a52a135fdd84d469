"""What is measured of one device: the CPU, or a GPU and its link. Stages, the most decisive first.

Each stage gives figures by name, of which ``device_figures`` makes a ``DeviceSpeed`` whichever of them there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from llmrun.errors import DeviceError
from llmrun.hardware.direct_io import BLOCK_BYTES, READERS
from llmrun.hardware.measure_compute import (
    COLUMNS,
    FEW_TOKENS,
    MATRIX_BYTES,
    TOKENS,
    attention_speed,
    memory_speed,
    torch_type,
    weight_rate,
)
from llmrun.hardware.measure_disk import Blocks, Readers, opened, touched
from llmrun.hardware.measure_layer import element_seconds, overheads
from llmrun.hardware.speeds import LinkSpeed, Spread
from llmrun.hardware.target import Target
from llmrun.hardware.timing import median_s, nothing, samples_s, spread
from llmrun.units import MIB

DTYPE = "BF16"
"""Of nearly all checkpoints; the others get fewer points."""

PAGEABLE_BYTES, PINNED_BYTES, SMALL_BYTES = 32 * MIB, 64 * MIB, 64
MOST_SLOWDOWN = 3.0

FIRST_POINTS = 4
"""Of the curve, before attention and overheads: these tell more than what lies between the points."""


@dataclass(frozen=True)
class Stage:
    """Something to measure.

    Attributes:
        share: of the time, beside the shares of the others.
        work: gives figures by name, in about so many seconds.
    """

    share: float
    work: Callable[[float], Mapping[str, Any]]


def run_stages(stages: Sequence[Stage], limit_s: float, tell: Callable[[str, Any], None]) -> None:
    """Run them in order, in inference mode, telling each figure at once.

    A stage that takes more than its share leaves the later ones less, down to one sample each.
    """
    deadline_s = time.perf_counter() + limit_s
    for index, stage in enumerate(stages):
        left_s = max(0.0, deadline_s - time.perf_counter())
        share = stage.share / sum(later.share for later in stages[index:])
        for name, figure in stage.work(share * left_s).items():
            tell(name, figure)


def cpu_stages(target: Target, files: Sequence[Path], *, brief: bool = False) -> list[Stage]:
    """Of the CPU with all of torch's threads; ``files`` are read meanwhile, if there are any.

    ``brief``: only what the model's own layers do not tell, where those have been measured.
    """
    reading = [Stage(0.1, partial(_slowdown, target, files))] if files else []
    decisive = _decisive(target)
    if brief:
        return [*decisive[:2], *reading, _overheads(target), _memory(target)]
    threads = Stage(0.05, partial(thread_speeds, target))
    more = _curve(target, DTYPE, TOKENS[FIRST_POINTS:])
    return [*decisive, *more, *reading, _memory(target), threads, *_other_dtypes(target)]


def gpu_stages(target: Target, *, pinned: bool = True) -> list[Stage]:
    """Of a GPU: its link first, without which nothing is to be had of it."""
    link = Stage(0.3, lambda limit_s: {"link": asdict(measure_link(target, pinned, limit_s))})
    more = _curve(target, DTYPE, TOKENS[FIRST_POINTS:])
    return [link, *_decisive(target), *more, _memory(target), *_other_dtypes(target)]


def _decisive(target: Target) -> list[Stage]:
    return [
        *_curve(target, DTYPE, TOKENS[:FIRST_POINTS]),
        Stage(0.14, lambda limit_s: asdict(attention_speed(target, DTYPE, limit_s))),
        _overheads(target),
        Stage(0.08, lambda limit_s: {"element_s": element_seconds(target, DTYPE, limit_s)}),
    ]


def _overheads(target: Target) -> Stage:
    return Stage(0.1, lambda limit_s: asdict(overheads(target, DTYPE, limit_s)))


def _other_dtypes(target: Target) -> list[Stage]:
    return [*_curve(target, "F16", FEW_TOKENS), *_curve(target, "F32", FEW_TOKENS)]


def _curve(target: Target, dtype: str, counts: Sequence[int]) -> list[Stage]:
    def point(tokens: int) -> Stage:
        return Stage(
            0.06 if tokens == 1 else 0.035,
            lambda limit_s: {f"weights.{dtype}.{tokens}": weight_rate(target, dtype, tokens, limit_s)},
        )

    return [point(tokens) for tokens in counts]


def _memory(target: Target) -> Stage:
    return Stage(0.05, lambda limit_s: {"memory": asdict(memory_speed(target, limit_s))})


def thread_speeds(target: Target, limit_s: float) -> dict[str, float]:
    """Bytes of RAM read a second with 1, 2, 4, ... and all threads that torch uses, as ``threads.1`` and so on."""
    import torch

    most = torch.get_num_threads()
    counts = sorted({*(2**power for power in range(most.bit_length())), most})
    found = {}
    try:
        for count in counts:
            torch.set_num_threads(count)
            found[f"threads.{count}"] = memory_speed(target, limit_s / len(counts), at_least=3).p50
    finally:
        torch.set_num_threads(most)
    return found


def _slowdown(target: Target, files: Sequence[Path], limit_s: float) -> dict[str, float]:
    """Nothing of a disk that fails: of that the measurement of the disk tells."""
    with suppress(DeviceError):
        return {"slowdown": reading_slowdown(target, files, limit_s)}
    return {}


def reading_slowdown(target: Target, files: Sequence[Path], limit_s: float) -> float:
    """How much longer a product with weights in RAM takes while the disk is being read, at least 1.

    Raises:
        DeviceError: ``read-failed``.
    """
    import torch

    kind = torch_type("BF16")
    rows = min(MATRIX_BYTES, target.pool.nbytes // 2) // (COLUMNS * kind.itemsize)
    states, turn = target.numbers(target.states_dtype(kind), 1, COLUMNS), iter(range(1 << 62))
    memory = touched(READERS * BLOCK_BYTES)

    def product() -> None:
        torch.nn.functional.linear(states, target.weight(kind, rows, COLUMNS, next(turn)))

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
