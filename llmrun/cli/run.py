"""From a model's name to an engine that is reading it: the start that ``chat`` and ``bench`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmrun.cli.apart import standard_output_apart
from llmrun.cli.draft_model import check_draft_model, draft_model, with_draft_model
from llmrun.cli.guesses_file import keep_guesses, known_acceptance
from llmrun.cli.machine import Machine, budget_on, tell_of_format, this_machine
from llmrun.cli.options import workload_within
from llmrun.cli.repack import runnable_spec
from llmrun.errors import UsageError
from llmrun.settings import AUTO, LOSSLESS, SPECULATE_AUTO, Budget, Precision, Quality, Speculating, Workload
from llmrun.units import format_bytes

if TYPE_CHECKING:
    from llmrun.checkpoint import ModelSpec
    from llmrun.engine.engine import Engine
    from llmrun.hardware.speeds import Speeds
    from llmrun.planner import Plan

Notify = Callable[[str], None]


@dataclass(frozen=True)
class RunSettings:
    """What the command line says about a run; ``None`` is the default, which depends on the host and the model."""

    model: str | None = None
    ram_bytes: int | None = None
    vram_bytes: int | None = None
    context_tokens: int | None = None
    planner: str | None = None
    plan_file: Path | None = None
    precision: Precision = LOSSLESS
    speculating: Speculating = SPECULATE_AUTO
    seed: int | None = None  # of the planner's search; ``None``: a plan that was saved will do
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Planned:
    """A model that is on this disk, and how it will be run on this machine; ``draft_model`` drafts for it."""

    spec: ModelSpec
    machine: Machine
    budget: Budget
    plan: Plan
    draft_model: ModelSpec | None = None


@dataclass(frozen=True)
class Running:
    """A model that is being run."""

    spec: ModelSpec
    budget: Budget
    plan: Plan
    engine: Engine
    speeds: Speeds | None = None


@contextmanager
def start(settings: RunSettings, notify: Notify, starting: Notify = lambda note: None) -> Iterator[Running]:
    """Find the model, plan it and start its engine, which reads weights while it still imports torch.

    Args:
        settings: what the user asks for.
        notify: told what is done to get a model that is not here yet.
        starting: told when the model is here and its engine starts, which takes seconds.

    Raises:
        LlmrunError: the model is not there or cannot run, nothing fits the budget, a device failed.
    """
    planned = make_ready(settings, notify)
    starting(f"starting {planned.spec.name}")
    with start_planned(planned, settings) as engine:
        yield Running(planned.spec, planned.budget, planned.plan, engine, planned.machine.speeds)


def make_ready(settings: RunSettings, notify: Notify) -> Planned:
    """Find the model, measure the machine if it was not, and plan.

    Raises:
        LlmrunError: the model is not there or cannot run, or nothing fits the budget.
    """
    from llmrun.hub import resolve
    from llmrun.planner.make import check_context

    _check_options(settings)
    speculating = settings.speculating
    local = resolve(settings.model, notify=notify)
    trust = settings.trust_remote_code
    spec = runnable_spec(local, notify, ram_bytes=settings.ram_bytes, trust_remote_code=trust)
    workload = workload_within(spec, settings.context_tokens, None, None)
    check_context(spec, workload)
    tell_of_format(spec, settings.precision, notify)
    drafts = draft_model(speculating, spec, notify, ram_bytes=settings.ram_bytes, trust_remote_code=trust)
    machine = this_machine(
        spec,
        notify,
        may_measure=True,
        precision=settings.precision,
        speculating=speculating,
        ram_bytes=settings.ram_bytes,
    )
    budget = budget_on(machine, settings.ram_bytes, settings.vram_bytes, notify)
    machine = with_draft_model(machine, drafts, notify)
    plan = _plan(settings, spec, drafts, workload, machine, budget, notify)
    if plan.speculating.model and speculating.method == AUTO:  # of a file
        speculating = plan.speculating
        drafts = draft_model(speculating, spec, notify, ram_bytes=settings.ram_bytes, trust_remote_code=trust)
    if drafts:
        _check_counted(plan, drafts)
        plan = replace(plan, speculating=speculating)
    return Planned(spec, machine, budget, plan, drafts)


@contextmanager
def start_planned(planned: Planned, settings: RunSettings) -> Iterator[Engine]:
    """An engine that runs the plan, closed at the end of the ``with``; how often its guesses were right is kept.

    Raises:
        LlmrunError: the model cannot run, or a device failed.
    """
    from llmrun.engine.start import start_engine

    with start_engine(
        planned.spec,
        planned.plan,
        planned.machine.speeds,
        speculating=settings.speculating,
        draft_model=planned.draft_model,
        trust_remote_code=settings.trust_remote_code,
    ) as engine:
        try:
            yield engine
        finally:
            keep_guesses(planned.spec, *engine.guesses, planned.draft_model)


def _check_options(settings: RunSettings) -> None:
    """Before anything is fetched or measured.

    Raises:
        UsageError: ``bad-option``.
        CheckpointError: there is no model that is to draft.
    """
    from llmrun.planner.make import check_planner

    precision = settings.precision
    quality = None if precision.quality is Quality.LOSSLESS else precision.quality
    asked = {"--context": settings.context_tokens, "--planner": settings.planner}
    asked |= {"--quality": quality, "--format": precision.format}
    for option, given in asked.items():
        if settings.plan_file and given is not None:
            raise UsageError(
                "bad-option",
                f"{option} does not go with --plan, which has one of its own",
                hint=f"leave it out, or `llmrun plan {option} ... --output FILE`",
            )
    if settings.planner:
        check_planner(settings.planner)
    check_draft_model(settings.speculating)


def _check_counted(plan: Plan, drafts: ModelSpec) -> None:
    """
    Raises:
        UsageError: ``bad-option``, a plan of ``--plan`` has no memory for that model.
    """
    from llmrun.planner.draft_model import counts, draft_model_bytes

    if not counts(plan, drafts):
        needed, there = draft_model_bytes(drafts, plan.workload), plan.workload.draft_model_bytes
        raise UsageError(
            "bad-option",
            f"{drafts.name} takes {format_bytes(needed)} to draft, the plan of --plan has {format_bytes(there)} for it",
            hint=f"`llmrun plan {plan.model} --speculate {drafts.name} --output FILE` makes one for it",
        )


def _plan(
    settings: RunSettings,
    spec: ModelSpec,
    drafts: ModelSpec | None,
    workload: Workload,
    machine: Machine,
    budget: Budget,
    notify: Notify,
) -> Plan:
    """The plan of ``--plan``, the one that `llmrun plan` saved for such a run, or a new one."""
    from llmrun.cli.plans_folder import load_plan, saved_plan
    from llmrun.planner import DEFAULT_PLANNER, make_plan

    if settings.plan_file:
        return load_plan(settings.plan_file, spec, machine.speeds.host, budget)
    if settings.seed is None:
        saved, note = saved_plan(
            spec,
            machine.speeds.host,
            budget,
            workload.context_tokens,
            precision=settings.precision,
            speculating=settings.speculating,
            draft_model=drafts,
            planner=settings.planner,
        )
        if note:
            notify(note)
        if saved:
            return saved
    planner = settings.planner or DEFAULT_PLANNER
    with standard_output_apart():
        return make_plan(
            spec,
            workload,
            budget,
            machine.speeds,
            planner=planner,
            seed=settings.seed or 0,
            precision=settings.precision,
            speculating=settings.speculating,
            acceptance=known_acceptance(spec, drafts),
            draft_model=drafts,
        )
