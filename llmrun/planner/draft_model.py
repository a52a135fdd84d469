"""A small model that drafts for a large one: all of it in RAM beside that, with a KV cache for the same context."""

from __future__ import annotations

from dataclasses import replace

from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.checkpoint.spec import ModelSpec
from llmrun.formats import weight_format
from llmrun.hardware.speeds import Speeds
from llmrun.planner.drafting import Small
from llmrun.planner.memory import account
from llmrun.planner.peak import request_bytes, touched_kv_bytes
from llmrun.planner.plan import CPU, DEFAULT_SLOTS, Placement, Plan, Prediction
from llmrun.planner.predict import predict
from llmrun.planner.simulation.cost import read_seconds
from llmrun.settings import LOSSLESS, Budget, Precision, Quality, Workload


def draft_precision(model: ModelSpec) -> Precision:
    """As ``model`` drafts: states meet integer weights in 8 bits, which is faster and changes guesses only."""
    plain = all(weight_format(name).is_plain for name in model.weight_formats)
    return LOSSLESS if plain else Precision(Quality.BALANCED)


def draft_model_plan(model: ModelSpec, workload: Workload) -> Plan:
    """By which ``model`` drafts where another runs ``workload``; the other's account of memory has its own."""
    return Plan(
        model=model.name,
        planner="all in RAM",
        workload=_workload(model, workload),
        placements=_placements(model),
        rings=(),
        memory=(),
        fingerprint=fingerprint(model),
        precision=draft_precision(model),
    )


def draft_model_bytes(model: ModelSpec, workload: Workload) -> int:
    """What it takes of RAM for that: weights, KV cache and workspace."""
    (memory,) = account(model, _workload(model, workload), Budget(0), _placements(model))
    return sum(line.nbytes for line in memory.lines if line.label != "process")


def draft_model_speed(model: ModelSpec, workload: Workload, speeds: Speeds) -> Small:
    """What it takes to draft for requests of that length."""
    fine, own = draft_precision(model).quality.fine, _workload(model, workload)
    predicted = predict(model, _placements(model), DEFAULT_SLOTS, speeds, own, fine=fine)
    load_s = sum(read_seconds(unit, speeds) for unit in model.units)
    return Small(predicted.tpot_s, load_s, predicted.warm_ttft_s / (own.prompt_tokens * own.batch))


def with_draft_peak(prediction: Prediction, model: ModelSpec, workload: Workload) -> Prediction:
    """What ``model`` will in fact have taken in such a request, in place of all that is reserved for it."""
    own = _workload(model, workload)
    weights = sum(unit.buffer_bytes for unit in model.units)
    touched = sum(touched_kv_bytes(model, unit, own) for unit in model.units)
    left = draft_model_bytes(model, workload) - weights - touched - request_bytes(model, own)
    return replace(prediction, peak_bytes={**prediction.peak_bytes, CPU: prediction.peak_bytes[CPU] - left})


def counts(plan: Plan, model: ModelSpec) -> bool:
    """Whether a plan has memory for ``model`` to draft."""
    return plan.workload.draft_model_bytes == draft_model_bytes(model, plan.workload)


def _placements(model: ModelSpec) -> tuple[Placement, ...]:
    return tuple(Placement(unit.name, CPU, CPU) for unit in model.units)


def _workload(model: ModelSpec, workload: Workload) -> Workload:
    """Drafts end where the context ends that it was made for."""
    context_tokens = min(workload.context_tokens, model.context_tokens)
    return replace(workload, context_tokens=context_tokens, draft_tokens=0, draft_model_bytes=0)
