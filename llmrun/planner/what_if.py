"""What would help: the same workload planned again with more memory, a faster disk, smaller weights, less context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from llmrun.checkpoint.spec import ModelSpec, TensorSpec, UnitSpec
from llmrun.errors import PlanError
from llmrun.hardware.headroom import vram_headroom_bytes
from llmrun.hardware.speeds import DeviceSpeed, DiskSpeed, LayerSpeed, Speeds, Spread, WeightSpeed
from llmrun.planner.plan import Plan, Prediction
from llmrun.settings import Budget, Workload
from llmrun.units import GIB

MORE_RAM_BYTES = 8 * GIB
GPU_GIB = (4, 6, 8, 12, 16, 24, 32, 48, 80)
CLEARLY_MORE = 1.25  # the sizes are further apart than that, and what other programs take of a GPU is less


@dataclass(frozen=True)
class Situation:
    """All that a plan depends on, apart from how it is searched; ``draft_model`` as ``make_plan`` has it."""

    spec: ModelSpec
    workload: Workload
    budget: Budget
    speeds: Speeds
    draft_model: ModelSpec | None = None


Replan = Callable[[Situation], Plan]


@dataclass(frozen=True)
class Change:
    """Something that could be different. ``name`` is for scripts, ``text`` for people."""

    name: str
    text: str
    situation: Situation


@dataclass(frozen=True)
class WhatIf:
    """A change, and what the best plan then is predicted to show; ``None`` where none was found."""

    change: Change
    prediction: Prediction | None


def what_if(situation: Situation, replan: Replan) -> tuple[WhatIf, ...]:
    """Every change that can be made, planned again."""
    return tuple(WhatIf(change, _prediction(change, replan)) for change in changes(situation))


def changes(now: Situation) -> Iterator[Change]:
    """More RAM, the next bigger GPU where there is one, a faster disk, smaller weights, a shorter context."""
    more_bytes = now.budget.ram_bytes + MORE_RAM_BYTES
    yield Change("ram_plus_8_gib", "8 GiB more RAM", replace(now, budget=replace(now.budget, ram_bytes=more_bytes)))
    if bigger := _bigger_gpu(now.budget):
        gpu, n_gib = bigger
        vram_bytes = {**now.budget.vram_bytes, gpu: _default_budget_bytes(n_gib)}
        budget = replace(now.budget, vram_bytes=vram_bytes)
        yield Change("bigger_gpu", f"{gpu} with {n_gib} GiB", replace(now, budget=budget))
    yield Change("disk_twice_as_fast", "a disk twice as fast", replace(now, speeds=_faster_disk(now.speeds)))
    smaller = replace(now, spec=halved(now.spec), speeds=_for_halved_weights(now.speeds))
    if now.draft_model:
        smaller = replace(smaller, draft_model=halved(now.draft_model))
    yield Change("half_the_bytes_per_weight", "half the bytes per weight", smaller)
    if shorter := _shorter(now.workload):
        text = f"half the context, {shorter.context_tokens:,} tokens"
        yield Change("half_the_context", text, replace(now, workload=shorter))


def halved(spec: ModelSpec) -> ModelSpec:
    """The model with half the bytes per weight, as 8-bit weights have where these have 16; computed in as before.

    Offsets are halved too, so that what lies side by side still does. The costs take FLOPs as parameters used, and
    these as bytes over the bytes of the dtype, so they are halved with them.
    """
    units = tuple(_halved_unit(unit) for unit in spec.units)
    return replace(spec, units=units, embedding=_halved_tensor(spec.embedding))


def _prediction(change: Change, replan: Replan) -> Prediction | None:
    try:
        return replan(change.situation).prediction
    except PlanError:
        return None


def _bigger_gpu(budget: Budget) -> tuple[str, int] | None:
    """The smallest GPU of the budget, and the next size there is of it."""
    used = {gpu: nbytes for gpu, nbytes in sorted(budget.vram_bytes.items()) if nbytes}
    if not used:
        return None
    gpu = min(used, key=lambda name: used[name])
    sizes = (n_gib for n_gib in GPU_GIB if _default_budget_bytes(n_gib) >= CLEARLY_MORE * used[gpu])
    n_gib = next(sizes, None)
    return (gpu, n_gib) if n_gib else None


def _default_budget_bytes(n_gib: int) -> int:
    return n_gib * GIB - vram_headroom_bytes(n_gib * GIB)


def _shorter(workload: Workload) -> Workload | None:
    """Half the context, where the requests still fit into it."""
    context_tokens = workload.context_tokens // 2
    fits = workload.past_tokens + workload.prompt_tokens + workload.new_tokens <= context_tokens
    return replace(workload, context_tokens=context_tokens) if fits else None


def _faster_disk(speeds: Speeds) -> Speeds:
    disk = speeds.disk
    shapes = tuple(replace(shape, bytes_per_s=_twice(shape.bytes_per_s)) for shape in disk.shapes)
    faster = DiskSpeed(_twice(disk.bytes_per_s), 2 * disk.single_bytes_per_s, disk.request_s / 2, shapes)
    return replace(speeds, disk=faster)


def _twice(spread: Spread) -> Spread:
    return Spread(2 * spread.p10, 2 * spread.p50, 2 * spread.p90)


def _halved_unit(unit: UnitSpec) -> UnitSpec:
    tensors = tuple(_halved_tensor(tensor) for tensor in unit.tensors)
    return replace(unit, tensors=tensors, flops_per_token=unit.flops_per_token // 2)


def _halved_tensor(tensor: TensorSpec) -> TensorSpec:
    return replace(tensor, offset=tensor.offset // 2, nbytes=tensor.nbytes // 2)


def _for_halved_weights(speeds: Speeds) -> Speeds:
    """The same bytes and FLOPs a second; but a byte now stands for twice the FLOPs."""
    layers = tuple(_halved_layer(layer) for layer in speeds.layers)
    return replace(speeds, devices=tuple(_halved_device(device) for device in speeds.devices), layers=layers)


def _halved_layer(layer: LayerSpeed) -> LayerSpeed:
    """A token takes half of the time; where the multipliers are what takes it, as long as before."""
    if not layer.tokens:
        return layer
    most_s, most = layer.seconds[-1], layer.tokens[-1]
    pairs = zip(layer.tokens, layer.seconds, strict=True)
    seconds = tuple(max(took_s / 2, most_s * tokens / most) for tokens, took_s in pairs)
    return replace(layer, nbytes=layer.nbytes // 2, seconds=seconds)


def _halved_device(device: DeviceSpeed) -> DeviceSpeed:
    return replace(device, weights=tuple(_halved_curve(curve) for curve in device.weights))


def _halved_curve(curve: WeightSpeed) -> WeightSpeed:
    """The roofline: where the bytes keep the multipliers busy at ``peak`` (tokens x bytes/s), they now do at half."""
    pairs = list(zip(curve.tokens, curve.bytes_per_s, strict=True))
    peak = max(tokens * rate for tokens, rate in pairs)
    return replace(curve, bytes_per_s=tuple(min(rate, peak / (2 * tokens)) for tokens, rate in pairs))
