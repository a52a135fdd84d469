"""From the figures that a process told of a device, however few, to its ``DeviceSpeed``; and what stands in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from llmrun.hardware.speeds import CPU, DeviceSpeed, LinkSpeed, Spread, ThreadSpeed, WeightSpeed

Figures = Mapping[str, Any]
"""By name (``weights.BF16.512``, ``layer_s``), or by path with the device before it (``cpu.layer_s``)."""

DTYPE, OTHERS = "BF16", ("F16", "F32")
ENOUGH_POINTS = 3
"""Of a curve, which is interpolated between them."""

CAUTIOUS_CPU = DeviceSpeed(
    device=CPU,
    name="not measured",
    memory_bytes_per_s=Spread(8e9, 8e9, 8e9),  # one channel of DDR4 less a third
    weights=tuple(WeightSpeed(dtype, (1, 512), (5e9, 5e7)) for dtype in (DTYPE, *OTHERS)),
    kv_bytes_per_s=1e9,
    attention_flops_per_s=2e10,
    layer_s=0.001,
    element_s=5e-9,
    kv_flops_per_s=2e9,
)
SINGLE = {
    "kv_bytes_per_s": "attention",
    "kv_flops_per_s": "attention",
    "attention_flops_per_s": "attention",
    "layer_s": "the time of a layer",
    "element_s": "norms and activations",
}
"""Figures of their own, of which ``CAUTIOUS_CPU``'s stand in."""

DECISIVE = ("kv_bytes_per_s", "kv_flops_per_s", "attention_flops_per_s", "layer_s")


@dataclass(frozen=True)
class Assembled:
    """A device's speeds; None for a GPU that failed, or of which too little is known to plan with it.

    Attributes:
        notes: what was not measured and what stands in for it, a line each.
        complete: all that decides was measured, or never will be.
    """

    speed: DeviceSpeed | None
    notes: tuple[str, ...]
    complete: bool


def assemble_device(device: str, name: str, told: Figures) -> Assembled:
    """What was measured of a device, with what stands in for the rest.

    Args:
        device: "cpu", "gpu:0".
        name: to show.
        told: all figures by path; ``cpu.failed`` is why measuring it ended.

    A curve needs its point at one token; between its points whoever uses it interpolates, and beyond the last the
    FLOP/s reached there hold. Where a model's own layers were measured, they tell what else is of interest. Without
    BF16's curve there is nothing to plan with, nor without a GPU's link.
    """
    prefix = f"{device}."
    own = {path.removeprefix(prefix): figure for path, figure in told.items() if path.startswith(prefix)}
    curve = _curve(DTYPE, own)
    if device != CPU and "failed" in own:
        note = f"{device} ({name}) could not be measured and is left out: {own['failed']}"
        return Assembled(None, (note,), True)
    if device != CPU and not (curve and "link" in own):
        return Assembled(None, (f"{device}: not measured, and not planned with",), False)
    if not curve:
        note = "processor: not measured; 5 GB/s of weights for a token stand in"
        return Assembled(replace(CAUTIOUS_CPU, name=name), (*_failure(own), note), False)
    brief = device == CPU and any(path.startswith("own.seconds") for path in told)
    complete = brief or (len(curve.tokens) >= ENOUGH_POINTS and all(figure in own for figure in DECISIVE))
    missing = () if brief else _missing(device, own, curve)
    return Assembled(_speed(device, name, own, curve), (*_failure(own), *missing), complete)


def _speed(device: str, name: str, own: Figures, curve: WeightSpeed) -> DeviceSpeed:
    memory = own.get("memory")
    rate = curve.bytes_per_s[0]
    return DeviceSpeed(
        device=device,
        name=name,
        memory_bytes_per_s=Spread(**memory) if memory else Spread(rate, rate, rate),
        weights=(curve, *(_curve(dtype, own, 2) or _like(curve, dtype) for dtype in OTHERS)),
        threads=tuple(ThreadSpeed(int(count), rate) for count, rate in _numbered("threads", own)),
        link=TypeAdapter(LinkSpeed).validate_python(own["link"]) if device != CPU else None,
        **{figure: own.get(figure, getattr(CAUTIOUS_CPU, figure)) for figure in SINGLE},
    )


def _numbered(kind: str, own: Figures) -> list[tuple[int, float]]:
    """``kind.1``, ``kind.2``, ... in order."""
    names = [name for name in own if name.startswith(f"{kind}.")]
    return sorted((int(name.rsplit(".", 1)[1]), own[name]) for name in names)


def _curve(dtype: str, own: Figures, least_points: int = 1) -> WeightSpeed | None:
    points = _numbered(f"weights.{dtype}", own)
    if len(points) < least_points or points[0][0] != 1:
        return None
    return WeightSpeed(dtype, tuple(tokens for tokens, _ in points), tuple(rate for _, rate in points))


def _like(bf16: WeightSpeed, dtype: str) -> WeightSpeed:
    """What stands for a dtype that was not measured.

    One token reads as many bytes a second, as memory allows, and more tokens have half of the FLOP/s: of F32, whose
    weights are twice as large, that is the same bytes a second again; of F16, which few CPUs multiply, half of them.
    """
    factor = 0.5 if dtype == "F16" else 1.0
    first, *others = bf16.bytes_per_s
    return WeightSpeed(dtype, bf16.tokens, (first, *(factor * rate for rate in others)))


def _failure(own: Figures) -> Iterator[str]:
    if "failed" in own:
        yield f"processor: measuring ended early: {own['failed']}"


def _missing(device: str, own: Figures, curve: WeightSpeed) -> Iterator[str]:
    who = "processor" if device == CPU else device
    if len(curve.tokens) < ENOUGH_POINTS:
        counts = " and ".join(map(str, curve.tokens))
        yield f"{who}: of BF16's curve only the points at {counts} measured; the others follow from those"
    missing = dict.fromkeys(label for figure, label in SINGLE.items() if figure not in own)
    if missing:
        yield f"{who}: {', '.join(missing)} not measured; cautious figures stand in"
    if "memory" not in own:
        yield f"{who}: reading memory not measured; taken as fast as the weights for a token"
    derived = [dtype for dtype in OTHERS if not _curve(dtype, own, 2)]
    if derived:
        yield f"{who}: {' and '.join(derived)} not measured; taken as BF16 with half of its FLOP/s"
