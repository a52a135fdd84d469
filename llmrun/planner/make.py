"""``make_plan``: from a model, a workload and a budget to a plan, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llmrun.checkpoint.spec import ModelSpec
from llmrun.errors import PlanError, Row, UsageError
from llmrun.planner.fill import fill, last, spread
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import DeviceMemory, Placement, Plan
from llmrun.settings import Budget, Workload
from llmrun.units import MIB, format_bytes

Planner = Callable[[ModelSpec, Workload, Budget], tuple[Placement, ...]]


def greedy(spec: ModelSpec, workload: Workload, budget: Budget) -> tuple[Placement, ...]:
    """Fill GPU, then RAM, then disk, in execution order."""
    return fill(spec, workload, budget, last)


def even(spec: ModelSpec, workload: Workload, budget: Budget) -> tuple[Placement, ...]:
    """As many resident layers as ``greedy``, the streamed ones spread between them."""
    return fill(spec, workload, budget, spread)


PLANNERS: dict[str, Planner] = {"greedy": greedy, "even": even}
DEFAULT_PLANNER = "even"


def make_plan(spec: ModelSpec, workload: Workload, budget: Budget, *, planner: str = DEFAULT_PLANNER) -> Plan:
    """A plan that keeps every budget. Pure: the same inputs give the same plan.

    Raises:
        UsageError: no planner of that name, or a context longer than the model's.
        PlanError: nothing fits; the message has the account and a hint that has been tried.
    """
    if planner not in PLANNERS:
        raise UsageError("bad-option", f"--planner {planner}: no such planner", hint=f"one of {', '.join(PLANNERS)}")
    if workload.context_tokens > spec.context_tokens:
        raise UsageError(
            "context-too-long",
            f"{spec.name} was made for a context of {spec.context_tokens:,} tokens, not {workload.context_tokens:,}",
            hint=f"`--context {spec.context_tokens}`",
        )
    plan = _plan(spec, workload, budget, planner)
    if not plan.fits:
        raise _over_budget(spec, plan, budget)
    return plan


def _plan(spec: ModelSpec, workload: Workload, budget: Budget, planner: str) -> Plan:
    placements = PLANNERS[planner](spec, workload, budget)
    return Plan(
        model=spec.name,
        planner=planner,
        workload=workload,
        placements=placements,
        rings=rings(spec, placements),
        memory=account(spec, workload, budget, placements),
    )


def _over_budget(spec: ModelSpec, plan: Plan, budget: Budget) -> PlanError:
    memory = plan.memory[0]  # of the RAM: a GPU that is too small is left alone
    short_bytes = memory.nbytes - memory.budget_bytes
    rows = [Row(line.label, format_bytes(line.nbytes), line.detail) for line in memory.lines]
    rows.append(Row("total", format_bytes(memory.nbytes), f"short by {format_bytes(short_bytes)}"))
    return PlanError(
        "plan-over-budget",
        f"No placement keeps the process within {format_bytes(memory.budget_bytes)} "
        f"at {plan.workload.context_tokens:,} tokens of context",
        rows=tuple(rows),
        hint=_hint(spec, plan, budget, memory),
    )


def _hint(spec: ModelSpec, plan: Plan, budget: Budget, memory: DeviceMemory) -> str:
    """The longest context that fits or, if none does, a budget that is enough; both are tried out here."""
    context_tokens = _longest_context(spec, plan, budget)
    if context_tokens:
        return f"`--context {context_tokens}` is the longest context that fits"
    needed_bytes = memory.nbytes
    while not _plan(spec, plan.workload, replace(budget, ram_bytes=needed_bytes), plan.planner).fits:
        needed_bytes += 16 * MIB
    return f"`--ram {-(-needed_bytes // MIB)}MiB` is enough for this context"


def _longest_context(spec: ModelSpec, plan: Plan, budget: Budget) -> int:
    """In steps of 256 tokens; 0 where not even the first step fits."""
    low, high = 0, plan.workload.context_tokens // 256
    while low < high:
        middle = (low + high + 1) // 2
        workload = replace(plan.workload, context_tokens=256 * middle)
        low, high = (middle, high) if _plan(spec, workload, budget, plan.planner).fits else (low, middle - 1)
    return 256 * low
