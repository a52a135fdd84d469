"""``llmrun plan``: where the weights of a model would live on a machine, and how fast that would be."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmrun.cli import options
from llmrun.cli.apart import standard_output_apart
from llmrun.cli.draft_model import described_draft_model, with_draft_model
from llmrun.cli.guesses_file import known_acceptance
from llmrun.cli.machine import Machine, budget_on, given_machine, tell_of_format, this_machine
from llmrun.cli.plans_folder import save_plan, write_whole
from llmrun.errors import DeviceError, UsageError
from llmrun.settings import LOSSLESS, SPECULATE_AUTO, Precision, Speculating
from llmrun.units import format_seconds

if TYPE_CHECKING:
    from llmrun.checkpoint.spec import ModelSpec
    from llmrun.cli.plan_report import PlanReport
    from llmrun.planner import Plan
    from llmrun.planner.what_if import Situation

Notify = Callable[[str], None]
Make = Callable[["Situation", str], "Plan"]
"""Makes a plan for a situation by the planner of that name."""


@dataclass(frozen=True)
class PlanSettings:
    """What the command line says; ``None`` is the default."""

    model: str | None = None
    dry_run: bool = False
    ram_bytes: int | None = None
    vram_bytes: int | None = None
    context_tokens: int | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    optimize: str = "total"
    planner: str | None = None
    planner_time_s: float | None = None
    precision: Precision = LOSSLESS
    speculating: Speculating = SPECULATE_AUTO
    seed: int = 0
    hardware: str | None = None
    compare: bool = False
    explain: bool = False
    trust_remote_code: bool = False


def plan(
    model: options.Model = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only read headers: download, measure and save nothing.")
    ] = False,
    ram: options.Ram = None,
    vram: options.Vram = None,
    context: options.Context = None,
    prompt_tokens: Annotated[
        int | None, typer.Option("--prompt-tokens", metavar="N", min=1, help="Plan for prompts of N tokens.")
    ] = None,
    new_tokens: Annotated[
        int | None, typer.Option("--new-tokens", metavar="N", min=1, help="Plan for answers of N tokens.")
    ] = None,
    optimize: options.Optimize = "total",
    planner: options.Planner = None,
    planner_time: options.PlannerTime = None,
    quality: options.QualityLevel = None,
    format_name: options.KeptFormat = None,
    speculate: options.Speculate = None,
    draft_tokens: options.DraftTokens = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the search; the same plan again.")] = 0,
    hardware: options.Hardware = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show all planners beside each other.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show why, and what would help by how much.")] = False,
    json: options.Json = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the plan there, for `chat --plan FILE`.")
    ] = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Show where the weights would live, and the speed to expect. The plan is saved for `llmrun chat`.

    Reads the headers of a model only, so one that is not downloaded can be planned for, and so can, with --hardware, a
    machine that you do not have.
    """
    settings = PlanSettings(
        model=model,
        dry_run=dry_run,
        ram_bytes=options.parse_size("--ram", ram),
        vram_bytes=options.parse_size("--vram", vram),
        context_tokens=context,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        optimize=optimize,
        planner=planner,
        planner_time_s=planner_time,
        precision=options.parse_precision(quality, format_name),
        speculating=options.speculating(speculate, draft_tokens),
        seed=seed,
        hardware=hardware,
        compare=compare,
        explain=explain,
        trust_remote_code=trust_remote_code,
    )
    if dry_run and output:
        raise UsageError("bad-option", "--dry-run writes nothing, not even --output", hint="leave one of them out")
    report, machine = make_report(settings, maker(settings), _notify)
    _print(report, as_json=json)
    if output:
        _write(report.plan, output)
    elif not dry_run:
        _save(report, machine)


def make_report(settings: PlanSettings, make: Make, notify: Notify) -> tuple[PlanReport, Machine]:
    """The plan and what was asked about it, and the machine that it is for.

    Raises:
        UsageError: ``bad-option``, ``context-too-long``, ``no-speeds``, ``bad-hardware-file``.
        PlanError: ``plan-over-budget``.
        LlmrunError: the model is not there, or is broken.
    """
    from llmrun.cli.plan_report import PlanReport
    from llmrun.hub import find_spec
    from llmrun.planner import DEFAULT_PLANNER
    from llmrun.planner.make import check_context, check_planner
    from llmrun.planner.what_if import Situation

    name = settings.planner or DEFAULT_PLANNER
    check_planner(name)
    spec = find_spec(settings.model, notify=notify, trust_remote_code=settings.trust_remote_code)
    workload = options.workload_within(spec, settings.context_tokens, settings.prompt_tokens, settings.new_tokens)
    check_context(spec, workload)
    tell_of_format(spec, settings.precision, notify)
    drafts = described_draft_model(settings.speculating, spec, notify, trust_remote_code=settings.trust_remote_code)
    machine = _machine(settings, spec, notify)
    budget = budget_on(machine, settings.ram_bytes, settings.vram_bytes, notify)
    if not settings.dry_run:
        machine = with_draft_model(machine, drafts, notify)
    now = Situation(spec, workload, budget, machine.speeds, drafts)
    began_s = time.monotonic()
    report = PlanReport(spec, make(now, name), machine.words)
    notify(f"planned in {format_seconds(time.monotonic() - began_s)}")
    return _explained(report, settings, now, make), machine


def _explained(report: PlanReport, settings: PlanSettings, now: Situation, make: Make) -> PlanReport:
    """With the other planners, and with what would help, where these were asked for."""
    from llmrun.planner import PLANNERS
    from llmrun.planner.compare import compare
    from llmrun.planner.what_if import what_if

    plan = report.plan
    if settings.compare:
        found = compare(list(PLANNERS), lambda other: plan if other == plan.planner else make(now, other))
        report = replace(report, comparisons=found)
    if settings.explain:
        report = replace(report, what_ifs=what_if(now, lambda then: make(then, plan.planner)))
    return report


def _machine(settings: PlanSettings, spec: ModelSpec, notify: Notify) -> Machine:
    if settings.hardware:
        return given_machine(settings.hardware, notify)
    return this_machine(
        spec,
        notify,
        may_measure=not settings.dry_run,
        precision=settings.precision,
        speculating=settings.speculating,
        ram_bytes=settings.ram_bytes,
    )


def maker(settings: PlanSettings) -> Make:
    """Plans with the goal and the effort of the command line.

    Raises:
        UsageError: ``bad-option``, there is no such goal.
    """
    from llmrun.planner.make import DEFAULT_PLANNER_S, make_plan
    from llmrun.planner.problem import Objective

    goals = [goal.value for goal in Objective]
    if settings.optimize not in goals:
        message = f"--optimize {settings.optimize}: no such goal"
        raise UsageError("bad-option", message, hint=f"one of {', '.join(goals)}")
    objective = Objective(settings.optimize)
    planner_s = DEFAULT_PLANNER_S if settings.planner_time_s is None else settings.planner_time_s

    def make(now: Situation, planner: str) -> Plan:
        with standard_output_apart():
            return make_plan(
                now.spec,
                now.workload,
                now.budget,
                now.speeds,
                planner=planner,
                objective=objective,
                seed=settings.seed,
                planner_s=planner_s,
                precision=settings.precision,
                speculating=settings.speculating,
                acceptance=known_acceptance(now.spec, now.draft_model),
                draft_model=now.draft_model,
            )

    return make


def _print(report: PlanReport, *, as_json: bool) -> None:
    from llmrun.cli.plan_report import plan_report_json
    from llmrun.tui.plan_view import show_plan

    if as_json:
        typer.echo(plan_report_json(report))
    else:
        show_plan(sys.stdout, report.spec, report.plan, report.hardware, report.comparisons, report.what_ifs)


def _save(report: PlanReport, machine: Machine) -> None:
    if not machine.is_this_host:
        _notify("not saved, for it is for other hardware; --output FILE writes it")
    elif path := save_plan(report.plan, report.spec):
        _notify(f"saved for `llmrun chat` in {path}")
    else:
        _notify("not saved: the cache folder cannot be written")


def _write(plan: Plan, path: Path) -> None:
    from llmrun.planner.plan_file import plan_to_json

    try:
        write_whole(path.expanduser(), plan_to_json(plan))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise DeviceError("write-failed", f"{path} cannot be written: {error.strerror or error}") from None


def _notify(text: str) -> None:
    typer.echo(text, err=True)
