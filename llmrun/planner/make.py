"""``make_plan``: from a model, a workload, a budget and measured speeds to a plan, or to why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.checkpoint.spec import ModelSpec, UnitKind
from llmrun.errors import PlanError, UsageError
from llmrun.hardware.speeds import Speeds
from llmrun.planner.certificate.bound import Bound, lower_bound
from llmrun.planner.choices import Candidates, to_placements
from llmrun.planner.draft_model import draft_model_bytes, draft_model_speed, with_draft_peak
from llmrun.planner.drafting import (
    ACCEPTANCE,
    MOST_ACCEPTANCE,
    SUBSTITUTE,
    Guesses,
    Small,
    can_substitute,
    lengths_to,
    with_drafts,
)
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import CPU, DISK, Certificate, Placement, Plan, Slots
from llmrun.planner.predict import predict
from llmrun.planner.problem import Effort, Objective, Outcome, Planner, Problem, make_problem
from llmrun.planner.scenarios import scenarios
from llmrun.planner.searches.aco import aco
from llmrun.planner.searches.exhaustive import exhaustive
from llmrun.planner.searches.lean import leanest
from llmrun.planner.searches.milp import milp, rounded
from llmrun.planner.searches.over_budget import over_budget
from llmrun.planner.searches.pareto import nsga2
from llmrun.planner.searches.random_search import random_search
from llmrun.planner.searches.seeds import even, greedy
from llmrun.planner.simulation.cost import read_seconds
from llmrun.settings import AUTO, LOSSLESS, NGRAM, SELF, SPECULATE_OFF, Budget, Precision, Speculating, Workload

PLANNERS: Mapping[str, Planner] = {
    "aco": aco,
    "greedy": greedy,
    "even": even,
    "exhaustive": exhaustive,
    "milp": milp,
    "random": random_search,
    "nsga2": nsga2,
}
DEFAULT_PLANNER = "aco"
DEFAULT_PLANNER_S = 1.0

WORTH = 0.1
"""By so much, as a share, drafts have to be expected to be faster: how often they are right is not known yet."""


def make_plan(
    spec: ModelSpec,
    workload: Workload,
    budget: Budget,
    speeds: Speeds,
    *,
    planner: str = DEFAULT_PLANNER,
    objective: Objective = Objective.TOTAL,
    seed: int = 0,
    planner_s: float = DEFAULT_PLANNER_S,
    precision: Precision = LOSSLESS,
    speculating: Speculating = SPECULATE_OFF,
    acceptance: float = ACCEPTANCE,
    draft_model: ModelSpec | None = None,
) -> Plan:
    """A plan that keeps every budget. Pure: the same inputs give the same plan.

    Args:
        planner_s: how long to search at most, as the number of simulated candidates that take about so long; once more
            for a plan with substitutes, where that may be better.
        precision: in which formats weights that stay in RAM may be, or have to be, kept.
        speculating: whether the plan is to have substitutes of what streams, to draft with.
        acceptance: the share of guesses, by substitutes or by the draft model, that are taken to be right.
        draft_model: drafts, where ``speculating`` names a model; it is in RAM beside the one that is planned.

    Raises:
        UsageError: no planner of that name, or a context longer than the model's.
        PlanError: nothing fits; the message has the account and a hint that has been tried.
    """
    check_planner(planner)
    check_context(spec, workload)
    search_for = partial(_find, planner=planner, seed=seed, planner_s=planner_s, speeds=speeds)

    def problem(work: Workload, limits: Budget, substitute: str | None = None) -> Problem:
        return make_problem(spec, work, limits, scenarios(speeds), objective, precision, substitute)

    drafted = replace(workload, draft_tokens=speculating.draft_tokens)
    if draft_model:
        drafted = replace(drafted, draft_model_bytes=draft_model_bytes(draft_model, workload))
        found = search_for(problem(drafted, budget))
        assert found.prediction
        found = replace(found, prediction=with_draft_peak(found.prediction, draft_model, drafted))
        small = draft_model_speed(draft_model, workload, speeds)
        return _with_drafts(found, search_for(problem(workload, budget)), spec, speeds, speculating, acceptance, small)
    plain = search_for(problem(drafted if speculating.method == NGRAM else workload, budget))
    plain = replace(plain, speculating=speculating)
    if not _may_draft(plain, spec):
        return plain
    try:
        found = search_for(problem(drafted, replace(budget, vram_bytes={}), SUBSTITUTE))
    except PlanError:
        if speculating.method == SELF:
            raise
        return plain
    found = replace(found, memory=account(spec, drafted, budget, found.placements, found.slots))  # GPUs are left free
    plan = _with_drafts(found, plain, spec, speeds, speculating, acceptance)
    better = _goal_s(plan, objective) < (1 - WORTH) * _goal_s(plain, objective)
    return plan if better or speculating.method == SELF else plain


def _may_draft(plain: Plan, spec: ModelSpec) -> bool:
    """Whether substitutes are to be weighed: beside a plan with a GPU, which has no use for them, only if asked for."""
    asked = plain.speculating.method == SELF or (plain.speculating.method == AUTO and not plain.gpus)
    streams = any(p.home == DISK and spec.unit(p.unit).kind is UnitKind.LAYER for p in plain.placements)
    one_by_one = plain.workload.prefill_chunk_tokens == 1
    return asked and streams and not one_by_one and can_substitute(spec, plain.precision)


def _find(problem: Problem, *, planner: str, seed: int, planner_s: float, speeds: Speeds) -> Plan:
    """
    Raises:
        PlanError: nothing fits.
    """
    lean = leanest(problem)
    if not problem.fit.fits(lean)[0]:
        raise over_budget(problem, lean)
    bound = lower_bound(problem)
    effort = Effort.for_seconds(planner_s, problem, seed=seed, bound_s=bound.seconds)
    outcome = search(planner, problem, effort, bound)
    best = outcome.best if problem.fit.fits(outcome.best)[0] else lean
    seconds = float(problem.seconds(best)[0])
    certificate = Certificate(problem.objective, seconds, bound.seconds, seed, outcome.evaluations)
    return _plan(problem, best, speeds, planner, certificate)


def _with_drafts(
    plan: Plan,
    plain: Plan,
    spec: ModelSpec,
    speeds: Speeds,
    speculating: Speculating,
    acceptance: float,
    small: Small | None = None,
) -> Plan:
    """A plan with what drafts will give beside the best plan without; ``small`` as ``Guesses`` has it."""
    assert plan.prediction
    assert plain.prediction
    most = min(speculating.draft_tokens, plan.workload.prefill_chunk_tokens - 1)
    if most < 1:
        return replace(plan, speculating=speculating)
    guesses = Guesses(lengths_to(most), min(acceptance, MOST_ACCEPTANCE), plain.prediction.tpot_s, small)
    fine = plan.precision.quality.fine
    found = with_drafts(plan.prediction, spec, plan.placements, plan.slots, speeds, plan.workload, guesses, fine=fine)
    return replace(plan, prediction=found, speculating=speculating)


def _goal_s(plan: Plan, objective: Objective) -> float:
    """What is to be short, of a plan; rounding the substitutes is part of a first request."""
    prediction = plan.prediction
    assert prediction
    making_s = prediction.drafting.making_s if prediction.drafting else 0.0
    following_s = (plan.workload.new_tokens - 1) * prediction.tpot_s
    return {
        Objective.TTFT: prediction.ttft_s,
        Objective.TPOT: prediction.tpot_s,
        Objective.TOTAL: prediction.ttft_s + making_s + following_s,
        Objective.THROUGHPUT: prediction.warm_ttft_s + following_s,
    }[objective]


def search(planner: str, problem: Problem, effort: Effort, bound: Bound) -> Outcome:
    """What the planner of that name finds; the ants begin from the bound's own solution too."""
    if planner == DEFAULT_PLANNER:
        return aco(problem, effort, seeds=rounded(problem, bound))
    return PLANNERS[planner](problem, effort)


def check_planner(name: str) -> None:
    """Refuse a planner that there is not.

    Raises:
        UsageError: ``bad-option``.
    """
    if name not in PLANNERS:
        raise UsageError("bad-option", f"--planner {name}: no such planner", hint=f"one of {', '.join(PLANNERS)}")


def check_context(spec: ModelSpec, workload: Workload) -> None:
    """Refuse a context that the model was not made for.

    Raises:
        UsageError: ``context-too-long``.
    """
    if workload.context_tokens > spec.context_tokens:
        raise UsageError(
            "context-too-long",
            f"{spec.name} was made for a context of {spec.context_tokens:,} tokens, not {workload.context_tokens:,}",
            hint=f"`--context {spec.context_tokens}`",
        )


def _plan(problem: Problem, best: Candidates, speeds: Speeds, planner: str, certificate: Certificate) -> Plan:
    spec, workload, slots = problem.spec, problem.workload, best.slots(0)
    placements = to_placements(spec, problem.choices, best.codes[0].tolist())
    placements = _keep_embedding(problem, placements, slots, speeds)
    return Plan(
        model=spec.name,
        planner=planner,
        workload=workload,
        placements=placements,
        rings=rings(spec, placements, slots),
        memory=account(spec, workload, problem.budget, placements, slots),
        fingerprint=fingerprint(spec),
        hardware=speeds.host,
        prediction=predict(spec, placements, slots, speeds, workload, fine=problem.precision.quality.fine),
        certificate=certificate,
        precision=problem.precision,
    )


def _keep_embedding(
    problem: Problem, placements: Sequence[Placement], slots: Slots, speeds: Speeds
) -> tuple[Placement, ...]:
    """Read the whole embedding and keep it, where there is room and that takes less time than reading rows."""
    spec, work = problem.spec, problem.workload
    unit = spec.units[0]
    rows_s = (work.prompt_tokens + work.new_tokens) * work.batch * speeds.disk.request_s
    kept = (replace(placements[0], home=CPU), *placements[1:])
    worth = unit.kind is UnitKind.EMBEDDING and unit.tensors and read_seconds(unit, speeds) <= rows_s
    fits = all(memory.fits for memory in account(spec, work, problem.budget, kept, slots))
    return kept if worth and fits else tuple(placements)
