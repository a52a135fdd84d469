"""Measured speeds as people read them, in rows for a table of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmrun.units import GIB, MIB, format_rate, format_seconds

if TYPE_CHECKING:
    from llmrun.hardware.speeds import DeviceSpeed, LinkSpeed, Speeds, Spread, WeightSpeed

Row = tuple[str, ...]

_ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


def title(speeds: Speeds) -> str:
    """``speeds, measured 2026-03-01 12:30 UTC``."""
    return f"speeds, measured {speeds.measured_at[:16].replace('T', ' ')} UTC"


def rows(speeds: Speeds) -> list[Row]:
    """What, how fast, and how that was measured."""
    return [*_disk(speeds), *(row for device in speeds.devices for row in _device(device)), *_rest(speeds)]


def _disk(speeds: Speeds) -> Iterator[Row]:
    from llmrun.hardware.direct_io import BLOCK_BYTES, READERS

    disk, block = speeds.disk, f"{BLOCK_BYTES // MIB} MiB"
    yield "disk", _rate(disk.bytes_per_s), f"{_range(disk.bytes_per_s)} with {READERS} x {block}"
    yield "", format_rate(disk.single_bytes_per_s), f"with {block}; a page takes {_short(disk.request_s)}"


def _device(device: DeviceSpeed) -> Iterator[Row]:
    name = device.device
    yield f"{name} memory", _rate(device.memory_bytes_per_s), _range(device.memory_bytes_per_s)
    if len(device.threads) > 1:
        one = device.threads[0]
        yield "", format_rate(one.bytes_per_s), f"with {one.threads} thread"
    for curve in device.weights:
        yield f"{name} {curve.dtype}", format_rate(curve.bytes_per_s[0]), f"of weights for 1 token, {_flops(curve)}"
    yield f"{name} attention", format_rate(device.kv_bytes_per_s), _attention(device)
    yield f"{name} layer", _short(device.layer_s), "beside its matrices and attention"
    if device.link:
        yield from _link(name, device.link)


def _attention(device: DeviceSpeed) -> str:
    chunk = f"prompt {device.attention_flops_per_s / 1e9:,.0f} GFLOP/s"
    if device.kv_flops_per_s is None:
        return f"of KV; {chunk}"
    return f"of KV, up to {device.kv_flops_per_s / 1e9:.3g} GFLOP/s; {chunk}"


def _link(name: str, link: LinkSpeed) -> Iterator[Row]:
    inward = link.h2d_pinned_bytes_per_s
    yield (
        f"to {name}",
        _rate(inward),
        f"{_range(inward)}; not pinned {format_rate(link.h2d_pageable_bytes_per_s)}",
    )
    outward = link.d2h_pinned_bytes_per_s
    yield f"from {name}", format_rate(outward), f"not pinned {format_rate(link.d2h_pageable_bytes_per_s)}"


def _rest(speeds: Speeds) -> Iterator[Row]:
    yield "start", _short(speeds.startup_s), "imports, tokenizer and the model's skeleton"
    yield "token", _short(speeds.token_s), "beside its layers"
    yield "reading", f"x {speeds.reading_slowdown:.2f}", "time of a product while the disk is read"


def _rate(spread: Spread) -> str:
    return format_rate(spread.p50)


def _range(spread: Spread) -> str:
    unit, divisor = ("GiB/s", GIB) if spread.p90 >= GIB else ("MiB/s", MIB)
    return f"p10..p90 {spread.p10 / divisor:.1f}..{spread.p90 / divisor:.1f} {unit}"


def _flops(curve: WeightSpeed) -> str:
    tokens = curve.tokens[-1]
    gflops = 2 * tokens * curve.bytes_per_s[-1] / _ITEM_BYTES[curve.dtype] / 1e9
    return f"{gflops:,.0f} GFLOP/s for {tokens}"


def _short(seconds: float) -> str:
    """Overheads are far below what ``format_seconds`` shows."""
    if seconds >= 0.01:
        return format_seconds(seconds)
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.1f} us"
