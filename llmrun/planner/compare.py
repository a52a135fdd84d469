"""All planners beside each other on one problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmrun.errors import LlmrunError
from llmrun.planner.plan import Plan


@dataclass(frozen=True)
class Comparison:
    """What a planner found, or the reason why it did not run."""

    planner: str
    plan: Plan | None
    reason: str = ""


def compare(planners: Sequence[str], make: Callable[[str], Plan]) -> tuple[Comparison, ...]:
    """Each planner's plan by ``make(planner)``, the shortest objective first, then those that do not run here."""
    found = [_try(planner, make) for planner in planners]
    return tuple(sorted(found, key=_objective_s))


def _try(planner: str, make: Callable[[str], Plan]) -> Comparison:
    try:
        return Comparison(planner, make(planner))
    except LlmrunError as error:
        return Comparison(planner, None, error.message)


def _objective_s(one: Comparison) -> float:
    certificate = one.plan.certificate if one.plan else None
    return certificate.seconds if certificate else float("inf")
