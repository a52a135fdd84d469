"""Why nothing fits, line by line, and what would: every hint has been tried out."""

from __future__ import annotations

from dataclasses import replace

from llmrun.errors import PlanError, Row
from llmrun.planner.choices import Candidates, to_placements
from llmrun.planner.fit import Fit
from llmrun.planner.memory import account
from llmrun.planner.problem import Problem
from llmrun.planner.searches.lean import leanest
from llmrun.units import MIB, format_bytes

CONTEXT_STEP_TOKENS = 256


def over_budget(problem: Problem, lean: Candidates) -> PlanError:
    """The error for a problem whose leanest candidate does not fit."""
    placements = to_placements(problem.spec, problem.choices, lean.codes[0].tolist())
    memory = account(problem.spec, problem.workload, problem.budget, placements, lean.slots(0))[0]
    short_bytes = memory.nbytes - memory.budget_bytes
    rows = [Row(line.label, format_bytes(line.nbytes), line.detail) for line in memory.lines]
    rows.append(Row("total", format_bytes(memory.nbytes), f"short by {format_bytes(short_bytes)}"))
    return PlanError(
        "plan-over-budget",
        f"No placement keeps the process within {format_bytes(memory.budget_bytes)} "
        f"at {problem.workload.context_tokens:,} tokens of context",
        rows=tuple(rows),
        hint=_hint(problem, memory.nbytes),
    )


def _hint(problem: Problem, needed_bytes: int) -> str:
    """The longest context that fits or, if none does, a budget that is enough."""
    if context_tokens := _longest_context(problem):
        return f"`--context {context_tokens}` is the longest context that fits"
    return f"`--ram {-(-needed_bytes // MIB)}MiB` is enough for this context"


def _longest_context(problem: Problem) -> int:
    """In steps; 0 where not even the first step fits."""
    low, high = 0, problem.workload.context_tokens // CONTEXT_STEP_TOKENS
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(problem, CONTEXT_STEP_TOKENS * middle) else (low, middle - 1)
    return CONTEXT_STEP_TOKENS * low


def _fits(problem: Problem, context_tokens: int) -> bool:
    workload = replace(problem.workload, context_tokens=context_tokens)
    fit = Fit(problem.spec, workload, problem.budget, problem.choices)
    shorter = replace(problem, workload=workload, fit=fit)
    return bool(fit.fits(leanest(shorter))[0])
