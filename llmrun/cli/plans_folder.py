"""Plans in files: where ``llmrun plan`` saves them, and whether one may be used for the run that is asked for.

One plan is saved for a checkpoint, a host and a context: the last that was asked for. It is used only where it holds
now and was made for about the memory that is there now; a plan costs a second, so in doubt another is made.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from llmrun.errors import LlmrunError, UsageError
from llmrun.settings import LOSSLESS, SPECULATE_OFF, Budget, Precision, Speculating, cache_folder

if TYPE_CHECKING:
    from llmrun.checkpoint.spec import ModelSpec
    from llmrun.planner.plan import Plan

MORE_MEMORY = 1.1
"""A plan for less than what is there now, divided by this, leaves too much of it unused."""


def load_plan(path: Path, spec: ModelSpec, hardware: str, budget: Budget) -> Plan:
    """The plan of ``--plan FILE``, held against the model, the host (``Speeds.host``) and the budget of now.

    Raises:
        UsageError: ``file-unreadable``, ``not-text``, ``bad-plan-file``, ``plan-other-model``, ``plan-other-hardware``,
            ``gpu-missing``, ``context-too-long``.
        PlanError: ``plan-file-over-budget``.
    """
    from llmrun.planner.check_plan import check_plan

    return check_plan(_parse(path), spec, hardware, budget)


def saved_plan(
    spec: ModelSpec,
    hardware: str,
    budget: Budget,
    context_tokens: int,
    *,
    precision: Precision = LOSSLESS,
    speculating: Speculating = SPECULATE_OFF,
    draft_model: ModelSpec | None = None,
    planner: str | None = None,
    objective: str | None = None,
) -> tuple[Plan | None, str | None]:
    """The plan that ``llmrun plan`` saved for such a run, and a line for stderr where there is one.

    Args:
        precision: only a plan for this one.
        speculating: only a plan for such drafts.
        draft_model: only one with memory for this model to draft.
        planner: only a plan by this one; ``None``: by any.
        objective: only a plan for this goal; ``None``: for any.

    Returns:
        (plan, what it is), or (None, why the saved one is not used), or (None, None): none was saved.
    """
    from llmrun.planner.check_plan import check_plan
    from llmrun.planner.draft_model import counts

    path = saved_path(spec, hardware, context_tokens)
    if not path.is_file():
        return None, None
    try:
        made = _parse(path)
        plan = check_plan(made, spec, hardware, budget)
    except LlmrunError as error:
        return None, f"the saved plan is not used: {error.message}"
    if reason := _unfit(made, budget, precision, speculating, planner, objective):
        return None, f"the saved plan is not used: {reason}"
    if draft_model and not counts(made, draft_model):
        return None, f"the saved plan is not used: it was made for another {draft_model.name}"
    return plan, f"the plan that `llmrun plan` saved is used ({plan.planner})"


def save_plan(plan: Plan, spec: ModelSpec) -> Path | None:
    """Save the plan for runs on this host; where, or ``None`` if the cache folder cannot be written."""
    from llmrun.planner.plan_file import plan_to_json

    path = saved_path(spec, plan.hardware, plan.workload.context_tokens)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, plan_to_json(plan))
    except OSError:
        return None
    return path


def saved_path(spec: ModelSpec, hardware: str, context_tokens: int) -> Path:
    """The file for a checkpoint, whatever it is called, on a host and at a context."""
    from llmrun.checkpoint.fingerprint import fingerprint

    run = hashlib.sha256(f"{hardware}; {context_tokens}".encode()).hexdigest()[:16]
    return cache_folder() / "plans" / f"{fingerprint(spec)}-{run}.json"


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: it is there whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _unfit(
    made: Plan,
    budget: Budget,
    precision: Precision,
    speculating: Speculating,
    planner: str | None,
    objective: str | None,
) -> str | None:
    """Why a plan that holds is yet not the one to use."""
    if made.precision != precision:
        return f"it was made for {made.precision.words}"
    if made.speculating != speculating:
        return f"it was made for --speculate {made.speculating.method} --draft-tokens {made.speculating.draft_tokens}"
    if planner not in (None, made.planner):
        return f"it was made by {made.planner}"
    goal = made.certificate.objective if made.certificate else None
    if objective not in (None, goal):
        return f"it was made for {goal}"
    made_for = {memory.device: memory.budget_bytes for memory in made.memory}
    for device in ("cpu", *budget.vram_bytes):
        if budget.on(device) > MORE_MEMORY * made_for.get(device, 0):
            return "there is more memory now than it was made for"
    return None


def _parse(path: Path) -> Plan:
    from llmrun.planner.plan_file import plan_from_json

    return plan_from_json(_read(path), str(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError("file-unreadable", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError("not-text", f"{path} is not UTF-8 text (byte {error.start:,})") from None
