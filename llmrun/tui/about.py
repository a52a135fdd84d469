"""What is being run and where it lives, in a few lines. Pure."""

from __future__ import annotations

from llmrun.checkpoint.spec import ModelSpec
from llmrun.planner.plan import DISK, Plan
from llmrun.units import format_bytes


def about_text(spec: ModelSpec, plan: Plan) -> str:
    """Model, placement and memory, one line each."""
    rows = [
        ("model", f"{spec.name}  {kind_text(spec)}"),
        ("placement", placement_text(spec, plan)),
        ("context", f"{plan.workload.context_tokens:,} tokens"),
    ]
    rows += [
        (f"memory {memory.device}", f"{format_bytes(memory.nbytes)} of {format_bytes(memory.budget_bytes)} allowed")
        for memory in plan.memory
    ]
    return "\n".join(f"{label:<19} {text}" for label, text in rows)


def placement_text(spec: ModelSpec, plan: Plan) -> str:
    """How many of the bytes live on each tier: ``1.8 GiB in cpu, 6.2 GiB read from disk for every token``."""
    totals: dict[str, int] = {}
    for placement in plan.placements:
        totals[placement.home] = totals.get(placement.home, 0) + spec.unit(placement.unit).nbytes
    parts = [
        f"{format_bytes(nbytes)} {'read from disk for every token' if home == DISK else f'in {_tier(home)}'}"
        for home, nbytes in totals.items()
        if nbytes
    ]
    return ", ".join(parts)


def _tier(home: str) -> str:
    return "RAM" if home == "cpu" else home


def kind_text(spec: ModelSpec) -> str:
    """How large it is: ``135 M parameters, 256.6 MiB BF16``."""
    return f"{_parameters(spec.n_params)} parameters, {format_bytes(spec.nbytes)} {spec.format_words}"


def _parameters(count: int) -> str:
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"
