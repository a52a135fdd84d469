"""What a run of a plan will show, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmrun.checkpoint.kept import kept_unit, layer_shape
from llmrun.checkpoint.spec import ModelSpec, UnitKind
from llmrun.hardware.speeds import Speeds
from llmrun.planner.choices import candidate_of, stages
from llmrun.planner.drafting import Guesses, Small, with_drafts
from llmrun.planner.peak import peak_bytes
from llmrun.planner.plan import DISK, Busy, Placement, Plan, Prediction, Slots, is_gpu
from llmrun.planner.simulation.busy import busy_seconds, resources
from llmrun.planner.simulation.cost import cost, read_seconds
from llmrun.planner.simulation.simulate import simulate
from llmrun.settings import Workload


def predict_plan(spec: ModelSpec, plan: Plan, speeds: Speeds, workload: Workload, *, idle_s: float = 0.0) -> Prediction:
    """The prediction for another workload than the plan's own: what was in fact asked.

    Args:
        idle_s: from the moment the engine was ready to the request; weights come in meanwhile.
    """
    fine, slots = plan.precision.quality.fine, plan.slots
    prediction = predict(spec, plan.placements, slots, speeds, workload, idle_s=idle_s, fine=fine)
    if not plan.prediction or not (drafting := plan.prediction.drafting):
        return prediction
    small = None
    if plan.speculating.model:
        load_s = max(0.0, drafting.load_s - idle_s)
        small = Small(drafting.draft_s / drafting.draft_tokens, load_s, drafting.prompt_token_s)
    guesses = Guesses((drafting.draft_tokens,), drafting.acceptance, drafting.plain_tpot_s, small)
    drafted = with_drafts(prediction, spec, plan.placements, slots, speeds, workload, guesses, fine=fine)
    if small and drafted.tpot_s > prediction.tpot_s:  # the answer is too short for the small model to read the prompt
        return replace(prediction, ttft_s=drafted.ttft_s)
    return drafted


def predict(
    spec: ModelSpec,
    placements: Sequence[Placement],
    slots: Slots,
    speeds: Speeds,
    workload: Workload,
    *,
    idle_s: float = 0.0,
    fine: bool = True,
) -> Prediction:
    """The simulated times of one placement without drafts, and what it moves and takes.

    ``fine`` is as ``kernels.multiply`` has it.

    Raises:
        KeyError: a GPU of the placements was not measured.
    """
    used = {device for placement in placements for device in (placement.device, placement.prefill_device)}
    gpus = sorted(device for device in used if is_gpu(device))
    choices, candidate = candidate_of(spec, placements, slots)
    costs = cost(spec, speeds, workload, choices, gpus, fine=fine)
    lead_s = costs.lead_s + _embedding_read_s(spec, placements, speeds)
    costs = replace(costs, lead_s=lead_s).after_waiting(idle_s)
    times = simulate(costs, candidate)
    busy = busy_seconds(costs, candidate)[0]
    own = speeds.layer(layer_shape(spec, fine=fine))
    return Prediction(
        startup_s=speeds.startup_s,
        ttft_s=float(times.ttft_s[0]) + (own.first_s if own else 0.0),  # the same for every placement
        warm_ttft_s=float(times.warm_ttft_s[0]),
        tpot_s=float(times.tpot_s[0]),
        bytes_per_token=_bytes_per_token(spec, placements),
        busy=tuple(Busy(name, float(seconds)) for name, seconds in zip(resources(gpus), busy, strict=True)),
        peak_bytes=peak_bytes(spec, workload, placements, slots),
    )


def _embedding_read_s(spec: ModelSpec, placements: Sequence[Placement], speeds: Speeds) -> float:
    """A whole embedding that is kept in memory is read once, before the layers."""
    kept = [
        spec.unit(p.unit)
        for p in placements
        if p.home != DISK and spec.unit(p.unit).kind is UnitKind.EMBEDDING and spec.unit(p.unit).tensors
    ]
    return sum(read_seconds(unit, speeds) for unit in kept)


def _bytes_per_token(spec: ModelSpec, placements: Sequence[Placement]) -> dict[str, int]:
    """The weights that a token needs, by the tier they come from."""
    staged = {unit.name: unit for unit in stages(spec)}
    found: dict[str, int] = {}
    for placement in placements:
        if unit := staged.get(placement.unit):
            found[placement.home] = found.get(placement.home, 0) + kept_unit(unit, placement.kept).nbytes
    return dict(sorted(found.items()))
