"""What a dashboard knows before the first event: the model, its placement, and how fast the host was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmrun.checkpoint.spec import ModelSpec, UnitKind
from llmrun.hardware.speeds import Speeds
from llmrun.planner.plan import CPU, DISK, DeviceMemory, Plan, Prediction, is_gpu
from llmrun.tui.about import kind_text, placed_bytes
from llmrun.tui.layer_map import Cell, cell


@dataclass(frozen=True)
class Way:
    """A way that weights take, and the bytes a second that were measured of it.

    ``tier`` is that of ``BytesRead``. Where a device reads its own memory nothing is reported: it is then
    ``token_bytes`` for each token, the weights that the device computes.
    """

    label: str
    ceiling_bytes_per_s: float | None
    tier: str | None = None
    token_bytes: int = 0


@dataclass(frozen=True)
class Facts:
    """All that the dashboard shows beside the figures of the run.

    Attributes:
        layers: unit and cell of each, in execution order.
        others: likewise, of the embedding, the rest and the head.
        order: the units that a pass computes one after another.
        devices: by unit, what computes it for a token.
    """

    model: str
    kind: str
    layers: tuple[tuple[str, Cell], ...]
    others: tuple[tuple[str, Cell], ...]
    order: tuple[str, ...]
    devices: dict[str, str]
    ways: tuple[Way, ...]
    slots: dict[str, int]  # of the ring on each device
    memory: tuple[DeviceMemory, ...]
    prediction: Prediction | None


def facts(spec: ModelSpec, plan: Plan, speeds: Speeds | None) -> Facts:
    """The facts of a run; without ``speeds`` there are no ceilings."""
    layers, others = [], []
    for one in plan.placements:
        unit = spec.unit(one.unit)
        if unit.kind is UnitKind.LAYER:
            layers.append((one.unit, cell(one)))
        elif unit.tensors:
            others.append((one.unit, cell(one)))
    return Facts(
        model=spec.name,
        kind=", ".join(text for text in (kind_text(spec), plan.precision_words) if text),
        layers=tuple(layers),
        others=tuple(others),
        order=tuple(unit.name for unit in spec.units if unit.kind in (UnitKind.LAYER, UnitKind.HEAD)),
        devices={one.unit: one.device for one in plan.placements},
        ways=tuple(_ways(spec, plan, speeds)),
        slots={ring.device: ring.slots for ring in plan.rings},
        memory=plan.memory,
        prediction=plan.prediction,
    )


def _ways(spec: ModelSpec, plan: Plan, speeds: Speeds | None) -> Iterator[Way]:
    """Disk, the links to GPUs, and the memory of each device that computes."""
    yield Way("from disk", speeds.disk.bytes_per_s.p50 if speeds else None, DISK)
    links = [_link(speeds, gpu) for gpu in plan.gpus]
    if links:
        yield Way("RAM to GPU", sum(links) if all(links) else None, CPU)
    for device in (CPU, *plan.gpus):
        token_bytes = sum(
            placed_bytes(spec, one)
            for one in plan.placements
            if one.device == device and spec.unit(one.unit).kind in (UnitKind.LAYER, UnitKind.HEAD)
        )
        if token_bytes:
            ceiling = speeds.device(device).memory_bytes_per_s.p50 if speeds else None
            yield Way(f"from {device if is_gpu(device) else 'RAM'}", ceiling, token_bytes=token_bytes)


def _link(speeds: Speeds | None, gpu: str) -> float:
    link = speeds.device(gpu).link if speeds else None
    return link.h2d_pinned_bytes_per_s.p50 if link else 0.0
