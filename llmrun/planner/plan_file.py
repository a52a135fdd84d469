"""A plan as JSON text and back. Pure. Whoever wrote the text, everything in it is checked before it is a plan."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from llmrun.checkpoint.recipe import recipe_names
from llmrun.errors import UsageError
from llmrun.planner.plan import CPU, DISK, SCHEMA_VERSION, Plan, is_gpu

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MAX_NUMBER = 1 << 53  # what JSON says exactly; no amount of bytes comes near
LONG = 10**300  # no float holds it
MAX_SLOTS, MAX_DRAFT = 1024, 255
_HOME = re.compile(r"cpu|disk|gpu:\d{1,2}")
_DEVICE = re.compile(r"cpu|gpu:\d{1,2}")
_HINT = "`llmrun plan MODEL --output FILE` writes a plan"

Fault = tuple[str, str]  # a field, and what is wrong with it


def plan_to_json(plan: Plan) -> str:
    """The plan as JSON text; amounts are bytes and seconds."""
    return json.dumps(asdict(plan), indent=1) + "\n"


def plan_from_json(text: str, source: str = "the plan") -> Plan:
    """The plan that ``plan_to_json`` wrote; ``source`` is its name in errors.

    Raises:
        UsageError: ``bad-plan-file``, which names the field.
    """
    from pydantic import ValidationError

    value = _object(text, source)
    if value.get("schema") != SCHEMA_VERSION:
        raise bad_plan_file("schema", f"{value.get('schema')!r:.40}, where this llmrun reads {SCHEMA_VERSION}", source)
    try:
        (plan,) = _adapter().validate_json(json.dumps([value]))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise bad_plan_file(_field(first["loc"][1:]), first["msg"], source) from None
    for field, reason in _faults(plan):
        raise bad_plan_file(field, reason, source)
    return plan


def bad_plan_file(field: str, reason: str, source: str = "the plan") -> UsageError:
    """The error about one field of a plan."""
    return UsageError("bad-plan-file", f"{source} cannot be used: {field}: {reason}", hint=_HINT)


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError("bad-plan-file", f"{source} is no JSON: {error}", hint=_HINT) from None
    if not isinstance(value, dict):
        raise UsageError("bad-plan-file", f"{source} is JSON, but no plan", hint=_HINT)
    return value


@cache
def _adapter() -> TypeAdapter[tuple[Plan]]:
    """Converts nothing, takes no unknown field. A dataclass takes a config only from what it is within: a tuple."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(tuple[Plan], config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))


def _field(path: tuple[int | str, ...]) -> str:
    """``placements[3].home``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _faults(plan: Plan) -> Iterator[Fault]:
    """What types cannot say."""
    yield from _numbers("", asdict(plan))
    yield from _workload(plan)
    if plan.precision.format not in (None, *recipe_names()):
        yield "precision.format", f"{plan.precision.format!r:.40} is none of {', '.join(recipe_names())}"
    yield from _placements(plan)
    yield from _rings(plan)
    yield from _figures(plan)


def _numbers(field: str, value: object) -> Iterator[Fault]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _numbers(f"{field}.{name}".lstrip("."), part)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _numbers(f"{field}[{index}]", part)
    elif isinstance(value, int | float) and not 0 <= value <= MAX_NUMBER:
        shown = f"{value:.6g}" if isinstance(value, float) or abs(value) < LONG else f"{str(value)[:20]}..."
        yield field, f"{shown} is out of range"


def _workload(plan: Plan) -> Iterator[Fault]:
    work = plan.workload
    for name in ("context_tokens", "prompt_tokens", "new_tokens", "batch", "prefill_chunk_tokens"):
        if getattr(work, name) < 1:
            yield f"workload.{name}", "0 is too few"


def _placements(plan: Plan) -> Iterator[Fault]:
    if not plan.placements:
        yield "placements", "there are none"
    seen: set[str] = set()
    for index, one in enumerate(plan.placements):
        field = f"placements[{index}]"
        if one.unit in seen:
            yield f"{field}.unit", f"{one.unit!r} is placed twice"
        seen.add(one.unit)
        if not _HOME.fullmatch(one.home):
            yield f"{field}.home", f"{one.home!r} is none of cpu, disk, gpu:0, gpu:1, ..."
        for name, device in (("device", one.device), ("prompt_device", one.prefill_device)):
            if not _DEVICE.fullmatch(device):
                yield f"{field}.{name}", f"{device!r} is none of cpu, gpu:0, gpu:1, ..."
            elif is_gpu(one.home) and device != one.home:
                yield f"{field}.{name}", f"{one.unit} lives on {one.home} and cannot be computed on {device}"
            elif one.kept and (one.home, device) != (CPU, CPU):
                yield f"{field}.kept", f"only what stays in RAM for the CPU is kept in a format, not {one.unit}"
            elif one.substitute and (one.home, one.device) != (DISK, CPU):
                yield f"{field}.substitute", f"only what the CPU computes from disk has a substitute, not {one.unit}"
        for name, fmt in (("kept", one.kept), ("substitute", one.substitute)):
            if fmt and fmt not in recipe_names():
                yield f"{field}.{name}", f"{fmt!r:.40} is none of {', '.join(recipe_names())}"


def _rings(plan: Plan) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, ring in enumerate(plan.rings):
        if not _DEVICE.fullmatch(ring.device) or ring.device in seen:
            yield f"rings[{index}].device", f"{ring.device!r} is none of cpu, gpu:0, gpu:1, ..., or has two rings"
        seen.add(ring.device)
        if not 1 <= ring.slots <= MAX_SLOTS:
            yield f"rings[{index}].slots", f"{ring.slots:,} is not between 1 and {MAX_SLOTS:,}"


def _figures(plan: Plan) -> Iterator[Fault]:
    if plan.prediction and not plan.prediction.tpot_s:
        yield "prediction.tpot_s", "0 is too short"
    if plan.prediction and not plan.prediction.busy:
        yield "prediction.busy", "there are none"
    drafting = plan.prediction.drafting if plan.prediction else None
    if drafting and not (1 <= drafting.draft_tokens <= MAX_DRAFT and drafting.acceptance < 1 and drafting.pass_s):
        yield "prediction.drafting", f"{drafting.draft_tokens} tokens, right in {drafting.acceptance:g} of all cases"
    if plan.certificate and not plan.certificate.bound_s:
        yield "certificate.bound_s", "0 is too short"
