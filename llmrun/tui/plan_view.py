"""A plan for people: where the weights live, what that will show, and how near to the best it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from llmrun.checkpoint.spec import ModelSpec
from llmrun.planner.compare import Comparison
from llmrun.planner.plan import CPU, DISK, Certificate, Plan, Prediction, is_gpu
from llmrun.planner.what_if import WhatIf
from llmrun.tui.about import drafts_text, kind_text, placed_bytes
from llmrun.tui.layer_map import cells, rows
from llmrun.tui.plan_tables import (
    GAP_WIDTH,
    LABEL_WIDTH,
    NOTHING,
    by_tier,
    column_table,
    fine_seconds,
    home_style,
    label_table,
    resource_name,
    show,
    spaced,
    tier_name,
)
from llmrun.tui.plan_why import WIDE, compare_view, explain_view, pass_text
from llmrun.tui.theme import HEADING
from llmrun.units import format_bytes, format_seconds, format_tokens_rate

Lines = Iterator[tuple[str, str | Text]]

OBJECTIVES = {
    "total": "a first request takes {}",
    "ttft": "the first token takes {}",
    "tpot": "a token takes {}",
    "throughput": "a request among many takes {}",
}


def show_plan(
    stream: TextIO,
    spec: ModelSpec,
    plan: Plan,
    hardware: str,
    comparisons: Sequence[Comparison] | None = None,
    what_ifs: Sequence[WhatIf] | None = None,
) -> None:
    """Write the view of a plan and, where they were asked for, the other planners, and why it is so."""

    def draw(width: int) -> RenderableType:
        parts = [plan_view(spec, plan, hardware, width)]
        if comparisons is not None:
            parts.append(compare_view(comparisons, width))
        if what_ifs is not None and plan.prediction:
            parts.append(explain_view(plan.prediction, what_ifs))
        return spaced(*parts)

    show(stream, draw)


def plan_view(spec: ModelSpec, plan: Plan, hardware: str, width: int) -> RenderableType:
    """The whole view; ``hardware`` is told in words, ``width`` says where the map of the layers is wrapped."""
    return spaced(_header(spec, plan, hardware), _tiers(spec, plan, width), _map(spec, plan, width), _figures(plan))


def _header(spec: ModelSpec, plan: Plan, hardware: str) -> RenderableType:
    work = plan.workload
    request = f"{work.prompt_tokens:,} tokens of prompt, {work.new_tokens:,} new"
    batch = f", {work.batch} at once" if work.batch > 1 else ""
    model = Text.assemble((spec.name, HEADING), f"  {kind_text(spec)}")
    lines: list[tuple[str, str | Text]] = [
        ("model", model),
        ("context", f"{work.context_tokens:,} tokens: {request}{batch}"),
    ]
    if plan.precision_words:
        lines.append(("precision", plan.precision_words))
    if plan.speculating.model:
        lines.append(("drafts", drafts_text(spec, plan)))
    return label_table([*lines, ("hardware", hardware)])


def _tiers(spec: ModelSpec, plan: Plan, width: int) -> Table:
    """One row a tier: what lives there, and what the process reserves of it, for the whole context."""
    homes = [memory.device for memory in plan.memory]
    gap = GAP_WIDTH if width >= WIDE else 1
    table = column_table("tier", "units", "weights", "share", "reserved", "budget", "used", gap=gap)
    total_bytes = sum(placed_bytes(spec, placement) for placement in plan.placements)
    for home in [*sorted(home for home in homes if is_gpu(home)), CPU, DISK]:
        placed = [p for p in plan.placements if p.home == home and spec.unit(p.unit).tensors]
        nbytes = sum(placed_bytes(spec, placement) for placement in placed)
        share = f"{nbytes / total_bytes:.0%}"
        name = Text(tier_name(home), home_style(home))
        table.add_row(name, str(len(placed)), format_bytes(nbytes), share, *_used(plan, home))
    return table


def _used(plan: Plan, home: str) -> tuple[str, str, str]:
    """Reserved, budget, and how much of it that is."""
    memory = next((memory for memory in plan.memory if memory.device == home), None)
    if memory is None:
        return NOTHING, NOTHING, NOTHING
    used = f"{memory.nbytes / memory.budget_bytes:.0%}" if memory.budget_bytes else NOTHING
    return format_bytes(memory.nbytes), format_bytes(memory.budget_bytes), used


def _map(spec: ModelSpec, plan: Plan, width: int) -> RenderableType:
    """The layers as letters, with the number of the first at each line, and what the letters mean."""
    layers = cells(spec, plan)
    lines: list[tuple[str, str | Text]] = []
    for row in rows(len(layers), width - LABEL_WIDTH - GAP_WIDTH):
        text = Text.assemble(*((layers[index].letter, home_style(layers[index].home)) for index in row))
        lines.append((f"layer {row.start}", text))
    seen = {cell.letter: cell for cell in layers}
    for index, cell in enumerate(seen.values()):
        text = Text.assemble((cell.letter, home_style(cell.home)), f"  {cell.meaning}")
        lines.append(("" if index else "where", text))
    return label_table(lines)


def _figures(plan: Plan) -> Table:
    drafted = plan.prediction is not None and plan.prediction.drafting is not None
    lines = [*_predicted(plan.prediction), *_certified(plan.certificate, drafted=drafted), ("planner", _searched(plan))]
    return label_table(lines)


def _predicted(prediction: Prediction | None) -> Lines:
    if prediction is None:
        return
    busy_s = {busy.resource: busy.busy_s for busy in prediction.busy}[prediction.bottleneck]
    first, later = format_seconds(prediction.ttft_s), format_seconds(prediction.warm_ttft_s)
    yield "start", f"{format_seconds(prediction.startup_s)} until the engine computes"
    yield "first token", f"{first} then; {later} for a later request"
    yield "decode", f"{format_tokens_rate(prediction.decode_tokens_per_s)}, {fine_seconds(prediction.tpot_s)} a token"
    if drafting := prediction.drafting:
        yield "drafts", pass_text(drafting)
    yield "a token reads", by_tier(prediction.bytes_per_token)
    peaks = [f"{format_bytes(nbytes)} of {tier_name(device)}" for device, nbytes in prediction.peak_bytes.items()]
    yield "peak memory", f"{', '.join(peaks)} for such a request"
    yield "bottleneck", f"{resource_name(prediction.bottleneck)}, busy {busy_s / prediction.tpot_s:.0%} of the time"


def _certified(certificate: Certificate | None, *, drafted: bool) -> Lines:
    if certificate is None:
        return
    took = OBJECTIVES[certificate.objective].format(fine_seconds(certificate.seconds))
    took = f"without drafts {took}" if drafted else took
    bound = fine_seconds(certificate.bound_s)
    yield "gap", f"{took}, {max(0.0, certificate.gap):.1%} above the bound of {bound}"


def _searched(plan: Plan) -> str:
    if plan.certificate is None:
        return plan.planner
    n_tried = plan.certificate.evaluations
    placements = "placement" if n_tried == 1 else "placements"
    return f"{plan.planner}, seed {plan.certificate.seed}, {n_tried:,} {placements} simulated"
