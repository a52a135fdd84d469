"""Hosts that are somewhat faster or slower than measured: what a robust plan is averaged over.

A measured bandwidth is a spread and not a number. A plan that is best for the median alone may lean on a balance that
one bad day of the disk upsets, so the objective is the mean over a few corners of that spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from math import isfinite

from llmrun.hardware.speeds import DeviceSpeed, DiskSpeed, LayerSpeed, LinkSpeed, Speeds, Spread


class Bandwidth(StrEnum):
    """What may be off, each independently of the others."""

    DISK = "disk"
    MEMORY = "memory"  # of every device: weights, keys and values
    LINK = "link"  # between RAM and every GPU


def scenarios(speeds: Speeds) -> tuple[Speeds, ...]:
    """The host as measured, then its corners: the disk at its p10 or p90, memories and links at their p10 or p90.

    All have the same weight. Corners that are alike, for want of a measured spread, come once: at most five in all.
    """
    ends = ("p10", "p90")
    corners = [_corner(speeds, disk, memory) for disk in ends for memory in ends]
    return tuple(dict.fromkeys([speeds, *corners]))


def slower(speeds: Speeds, factors: Mapping[Bandwidth, float]) -> Speeds:
    """A host whose bandwidths are that many times lower (higher for factors below 1); latencies stay.

    Raises:
        ValueError: a factor is not a positive number.
    """
    if not all(isfinite(factor) and factor > 0 for factor in factors.values()):
        raise ValueError(f"factors must be positive: {dict(factors)}")
    disk, memory, link = (1 / factors.get(which, 1.0) for which in Bandwidth)
    return replace(
        speeds,
        disk=_disk(speeds.disk, disk),
        devices=tuple(_device(device, memory, link) for device in speeds.devices),
        layers=_layers(speeds, memory),
    )


def _corner(speeds: Speeds, disk: str, memory: str) -> Speeds:
    """One end of every spread taken for its middle."""
    return replace(
        speeds,
        disk=_disk(speeds.disk, _share(speeds.disk.bytes_per_s, disk)),
        devices=tuple(
            _device(
                device,
                _share(device.memory_bytes_per_s, memory),
                _share(device.link.h2d_pinned_bytes_per_s, memory) if device.link else 1.0,
            )
            for device in speeds.devices
        ),
        layers=_layers(speeds, _share(speeds.devices[0].memory_bytes_per_s, memory)),
    )


def _layers(speeds: Speeds, factor: float) -> tuple[LayerSpeed, ...]:
    return tuple(
        replace(
            layer,
            seconds=tuple(s / factor for s in layer.seconds),
            token_past_s=layer.token_past_s and layer.token_past_s / factor,
        )
        for layer in speeds.layers
    )


def _share(spread: Spread, end: str) -> float:
    share: float = getattr(spread, end) / spread.p50
    return share


def _disk(disk: DiskSpeed, factor: float) -> DiskSpeed:
    return replace(
        disk, bytes_per_s=_scaled(disk.bytes_per_s, factor), single_bytes_per_s=disk.single_bytes_per_s * factor
    )


def _device(device: DeviceSpeed, memory: float, link: float) -> DeviceSpeed:
    """All of a weight curve is scaled: what shares the memory with us shares the cores as well."""
    return replace(
        device,
        memory_bytes_per_s=_scaled(device.memory_bytes_per_s, memory),
        weights=tuple(
            replace(curve, bytes_per_s=tuple(rate * memory for rate in curve.bytes_per_s)) for curve in device.weights
        ),
        kv_bytes_per_s=device.kv_bytes_per_s * memory,
        kv_flops_per_s=device.kv_flops_per_s and device.kv_flops_per_s * memory,
        link=_link(device.link, link) if device.link else None,
    )


def _link(link: LinkSpeed, factor: float) -> LinkSpeed:
    return replace(
        link,
        h2d_pinned_bytes_per_s=_scaled(link.h2d_pinned_bytes_per_s, factor),
        h2d_pageable_bytes_per_s=link.h2d_pageable_bytes_per_s * factor,
        d2h_pinned_bytes_per_s=link.d2h_pinned_bytes_per_s * factor,
        d2h_pageable_bytes_per_s=link.d2h_pageable_bytes_per_s * factor,
    )


def _scaled(spread: Spread, factor: float) -> Spread:
    return Spread(spread.p10 * factor, spread.p50 * factor, spread.p90 * factor)
