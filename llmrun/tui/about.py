"""What is being run and where it lives, in a few lines. Pure."""

from __future__ import annotations

from llmrun.checkpoint.kept import kept_unit
from llmrun.checkpoint.spec import ModelSpec
from llmrun.planner.plan import CPU, DISK, Placement, Plan
from llmrun.units import format_bytes


def about_text(spec: ModelSpec, plan: Plan) -> str:
    """Model, placement and memory, one line each."""
    rows = [
        ("model", f"{spec.name}  {kind_text(spec)}"),
        ("placement", placement_text(spec, plan)),
        ("context", f"{plan.workload.context_tokens:,} tokens"),
    ]
    if plan.precision_words:
        rows.append(("precision", plan.precision_words))
    if drafts := drafts_text(spec, plan):
        rows.append(("drafts", drafts))
    rows += [
        (f"memory {memory.device}", f"{format_bytes(memory.nbytes)} of {format_bytes(memory.budget_bytes)} allowed")
        for memory in plan.memory
    ]
    return "\n".join(f"{label:<19} {text}" for label, text in rows)


def placement_text(spec: ModelSpec, plan: Plan) -> str:
    """How many of the bytes live on each tier: ``1.8 GiB in RAM, 6.2 GiB read from disk for every token``.

    With drafts for every pass, which gives several.
    """
    totals: dict[str, int] = {}
    for placement in plan.placements:
        totals[placement.home] = totals.get(placement.home, 0) + placed_bytes(spec, placement)
    each = "pass" if drafts_text(spec, plan) else "token"
    words = {DISK: f"read from disk for every {each}", CPU: "in RAM"}
    if plan.kept_formats:
        words[CPU] += f" ({' and '.join(plan.kept_formats)})"
    return ", ".join(
        f"{format_bytes(nbytes)} {words.get(home, f'in {home}')}" for home, nbytes in totals.items() if nbytes
    )


def drafts_text(spec: ModelSpec, plan: Plan) -> str:
    """What drafts and what that takes: ``by 26 units copied in q4, 1.2 GiB``; empty where nothing does."""
    if plan.speculating.model:
        return f"by {plan.speculating.model}, {format_bytes(plan.workload.draft_model_bytes)} with its KV cache"
    if not plan.substitutes:
        return ""
    nbytes = sum(kept_unit(spec.unit(p.unit), p.substitute).nbytes for p in plan.placements if p.substitute)
    return f"by {len(plan.substitutes)} units copied in {plan.substitute_format}, {format_bytes(nbytes)}"


def placed_bytes(spec: ModelSpec, placement: Placement) -> int:
    """Of a unit's weights, in the format that it is kept in."""
    return kept_unit(spec.unit(placement.unit), placement.kept).nbytes


def kind_text(spec: ModelSpec) -> str:
    """How large it is: ``135 M parameters, 256.6 MiB BF16``."""
    return f"{_parameters(spec.n_params)} parameters, {format_bytes(spec.nbytes)} {spec.format_words}"


def _parameters(count: int) -> str:
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"
