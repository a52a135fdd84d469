"""Whether a plan that was made before holds here and now: this model, this host, this budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.checkpoint.kept import is_kept
from llmrun.checkpoint.spec import ModelSpec, UnitKind
from llmrun.errors import PlanError, Row, UsageError
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import CPU, DISK, DeviceMemory, Placement, Plan, is_gpu
from llmrun.planner.plan_file import bad_plan_file
from llmrun.settings import Budget
from llmrun.units import MIB, format_bytes


def check_plan(plan: Plan, spec: ModelSpec, hardware: str, budget: Budget) -> Plan:
    """The plan, with its memory counted again against the budget.

    Args:
        plan: from a file.
        spec: what is to run.
        hardware: the host's name, ``Speeds.host``; a plan that names none is for any.
        budget: what it may take now.

    Raises:
        UsageError: ``plan-other-model``, ``plan-other-hardware``, ``gpu-missing``, ``context-too-long``,
            ``bad-plan-file``.
        PlanError: ``plan-file-over-budget``.
    """
    _check_model(plan, spec)
    _check_hardware(plan, hardware, budget)
    _check_tied_together(plan, spec)
    slots = plan.slots
    if plan.rings != rings(spec, plan.placements, slots):
        raise bad_plan_file("rings", "they are not those that the placements need")
    counted = replace(plan, memory=account(spec, plan.workload, budget, plan.placements, slots))
    over = [memory for memory in counted.memory if not memory.fits]
    if over:
        raise _over_budget(over)
    return counted


def _check_model(plan: Plan, spec: ModelSpec) -> None:
    units = [placement.unit for placement in plan.placements] == [unit.name for unit in spec.units]
    if not units or plan.fingerprint not in ("", fingerprint(spec)):
        raise UsageError(
            "plan-other-model",
            f"the plan is for {plan.model}, whose checkpoint is another than that of {spec.name}",
            hint=f"`llmrun plan {spec.name}` makes one for it",
        )
    if plan.workload.context_tokens > spec.context_tokens:
        raise UsageError(
            "context-too-long",
            f"the plan is for {plan.workload.context_tokens:,} tokens of context, "
            f"but {spec.name} was made for {spec.context_tokens:,}",
            hint=f"`llmrun plan {spec.name} --context {spec.context_tokens}`",
        )


def _check_hardware(plan: Plan, hardware: str, budget: Budget) -> None:
    if plan.hardware not in ("", hardware):
        raise UsageError(
            "plan-other-hardware",
            "the plan is for other hardware than this",
            rows=(Row("plan", "for", plan.hardware), Row("here", "is", hardware)),
            hint=f"`llmrun plan {plan.model}` makes one for this host",
        )
    there = [gpu for gpu, nbytes in sorted(budget.vram_bytes.items()) if nbytes]
    for gpu in plan.gpus:
        if gpu not in there:
            raise UsageError(
                "gpu-missing",
                f"the plan computes on {gpu}, but the GPUs that may be used here are: {', '.join(there) or 'none'}",
                hint=f"`llmrun plan {plan.model}` makes one for what is there",
            )


def _check_tied_together(plan: Plan, spec: ModelSpec) -> None:
    """What planners never decide apart, and the runtime relies on."""
    head = plan.placements[-1]
    layers = [p for p in plan.placements if spec.unit(p.unit).kind is UnitKind.LAYER]
    tail = layers[-1].device if layers else head.device
    for index, one in enumerate(plan.placements):
        kind, field = spec.unit(one.unit).kind, f"placements[{index}]"
        if one.prefill_device != one.device and kind is not UnitKind.LAYER:
            raise bad_plan_file(f"{field}.prompt_device", f"{one.unit} is no layer, and computed on one device only")
        if one.prefill_device != one.device and not (one.device == CPU and is_gpu(one.prefill_device)):
            raise bad_plan_file(f"{field}.prompt_device", "only a GPU takes a prompt over, and only from the CPU")
        if kind is UnitKind.REST and (one.home, one.device) != (tail, tail):
            raise bad_plan_file(f"{field}.home", f"{one.unit} belongs where the last layer computes, on {tail}")
        if one.kept and not is_kept(spec, spec.unit(one.unit), one.kept):
            raise bad_plan_file(f"{field}.kept", f"nothing of {one.unit} changes in {one.kept}")
        if one.substitute and not is_kept(spec, spec.unit(one.unit), one.substitute):
            raise bad_plan_file(f"{field}.substitute", f"nothing of {one.unit} changes in {one.substitute}")
        if kind is UnitKind.EMBEDDING and not _embedding_stands(one, head, tied=spec.tied_embeddings):
            raise bad_plan_file(f"{field}.home", f"{one.unit} is in RAM or on disk, one with the head where it is tied")


def _embedding_stands(embedding: Placement, head: Placement, *, tied: bool) -> bool:
    if tied:
        return embedding.home == head.home and embedding.device == (head.home if head.resident else CPU)
    return embedding.home in (CPU, DISK) and embedding.device == CPU


def _over_budget(over: Sequence[DeviceMemory]) -> PlanError:
    """Told for the first of the devices, with a hint for all of them."""
    memory = over[0]
    name = "RAM" if memory.device == CPU else memory.device
    short_bytes = memory.nbytes - memory.budget_bytes
    rows = [Row(line.label, format_bytes(line.nbytes), line.detail) for line in memory.lines]
    rows.append(Row("total", format_bytes(memory.nbytes), f"short by {format_bytes(short_bytes)}"))
    needed_bytes: dict[str, int] = {}
    for one in over:
        option = "--ram" if one.device == CPU else "--vram"
        needed_bytes[option] = max(needed_bytes.get(option, 0), one.nbytes)
    options = " ".join(f"{option} {-(-nbytes // MIB)}MiB" for option, nbytes in needed_bytes.items())
    return PlanError(
        "plan-file-over-budget",
        f"the plan takes more of {name} than the {format_bytes(memory.budget_bytes)} that are allowed now",
        rows=tuple(rows),
        hint=f"`{options}` is enough for it; `llmrun plan` makes one that takes less",
    )
