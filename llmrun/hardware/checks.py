"""What a hardware profile from a file must fulfil before a plan is made of it: every number within reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any

from llmrun.hardware.profile import HardwareProfile
from llmrun.hardware.speeds import CPU, DeviceSpeed, Speeds, Spread

RANGES: tuple[tuple[str, float, float], ...] = (  # the first whose name a field's name ends with: least, most
    ("flops_per_s", 1.0, 1e18),
    ("bytes_per_s", 1.0, 1e15),
    ("first_s", 0.0, 3600.0),
    ("_s", 1e-15, 3600.0),
    ("seconds", 1e-15, 3600.0),
    ("nbytes", 1, 1e16),
    ("reading_slowdown", 1.0, 1000.0),
    ("limit_bytes", 1, 1e16),
    ("total_bytes", 1, 1e19),  # file systems over a network claim as many
    ("free_bytes", 0, 1e19),
    ("available_bytes", 0, 1e16),
    ("startup_bytes", 0, 1e16),
    ("_bytes", 1, 1e16),
    ("_cores", 1, 1e6),
    ("threads", 1, 1e6),
    ("in_flight", 1, 1e6),
)


def faults(profile: HardwareProfile) -> Iterator[str]:
    """What is wrong, a sentence each that begins with the path of a field: ``speeds.disk.request_s is -1, ...``."""
    if not profile.limits:
        yield "limits is empty, the physical memory belongs there"
    yield from _numbers("", profile)
    if profile.speeds:
        yield from _speeds(profile, profile.speeds)


def _numbers(path: str, value: Any, name: str = "") -> Iterator[str]:  # noqa: ANN401
    """Every number below ``value`` that is out of the range of the field that holds it."""
    if is_dataclass(value):
        for field in fields(value):
            own = name if isinstance(value, Spread) else field.name  # a spread's three are of one kind
            yield from _numbers(f"{path}.{field.name}".lstrip("."), getattr(value, field.name), own)
        if isinstance(value, Spread) and not value.p10 <= value.p50 <= value.p90:
            yield f"{path} falls: p10 {value.p10:g}, p50 {value.p50:g}, p90 {value.p90:g}"
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _numbers(f"{path}[{index}]", item, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number(path, value, name)


def _number(path: str, value: float, name: str) -> Iterator[str]:
    least, most = next(((low, high) for end, low, high in RANGES if name.endswith(end)), (-math.inf, math.inf))
    if not least <= value <= most:  # neither is NaN
        yield f"{path} is {str(value)[:40]}, it has to be from {least:g} to {most:g}"


def _speeds(profile: HardwareProfile, speeds: Speeds) -> Iterator[str]:
    names = [device.device for device in speeds.devices]
    if names[:1] != [CPU]:
        yield f"speeds.devices[0].device is {names[0] if names else 'missing'}, it has to be {CPU}"
    if len(set(names)) < len(names):
        yield f"speeds.devices names one twice: {', '.join(names)}"
    for name in names[1:]:
        if name not in {gpu.device for gpu in profile.gpus}:
            yield f"speeds.devices has {name}, which is not among the gpus"
    for index, device in enumerate(speeds.devices):
        yield from _device(f"speeds.devices[{index}]", device)
    for index, layer in enumerate(speeds.layers):
        if layer.tokens or layer.seconds:
            yield from _points(f"speeds.layers[{index}]", layer.tokens, layer.seconds, "seconds")


def _device(path: str, device: DeviceSpeed) -> Iterator[str]:
    if not device.weights:
        yield f"{path}.weights is empty"
    if device.device != CPU and device.link is None:
        yield f"{path}.link is missing"
    for index, curve in enumerate(device.weights):
        yield from _points(f"{path}.weights[{index}]", curve.tokens, curve.bytes_per_s, "bytes_per_s")


def _points(path: str, tokens: Sequence[int], figures: Sequence[float], name: str) -> Iterator[str]:
    if tuple(tokens[:1]) != (1,) or any(before >= after for before, after in pairwise(tokens)):
        yield f"{path}.tokens is {list(tokens)}, it has to rise from 1"
    if len(figures) != len(tokens):
        yield f"{path}.{name} has {len(figures)} figures for {len(tokens)} numbers of tokens"
