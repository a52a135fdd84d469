"""Why a plan is as fast as it is, what would make it faster, and what other planners make of the same problem."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from llmrun.planner.compare import Comparison
from llmrun.planner.plan import DISK, Drafting, Plan, Prediction
from llmrun.planner.what_if import WhatIf
from llmrun.tui.plan_tables import NOTHING, column_table, fine_seconds, label_table, resource_name, spaced, tier_name
from llmrun.units import format_bytes, format_rate, format_seconds, format_tokens_rate

WIDE = 72  # columns


def compare_view(comparisons: Sequence[Comparison], width: int) -> RenderableType:
    """A row for each planner that ran, and why the others did not; narrow terminals are not told what is read."""
    headings = ("planner", "objective", "first token", "decode", "gap", "disk/token")
    n_columns = len(headings) if width >= WIDE else len(headings) - 1
    table = column_table(*headings[:n_columns])
    for one in comparisons:
        if one.plan and one.plan.prediction:
            table.add_row(Text(one.planner), *_compared(one.plan, one.plan.prediction)[: n_columns - 1])
    absent = [(one.planner, f"not run: {one.reason}") for one in comparisons if one.plan is None]
    return spaced(table, label_table(absent)) if absent else table


def explain_view(prediction: Prediction, what_ifs: Sequence[WhatIf]) -> RenderableType:
    """What each resource does for a token, what comes from each tier, and what would help."""
    parts = [_busy(prediction), _tiers(prediction)]
    if prediction.drafting:
        parts.append(_drafts(prediction, prediction.drafting))
    return spaced(*parts, _what_ifs(prediction, what_ifs)) if what_ifs else spaced(*parts)


def pass_text(drafting: Drafting) -> str:
    """What a pass with guesses takes and gives."""
    guesses = f"{drafting.draft_tokens} guesses in {fine_seconds(drafting.draft_s)}"
    checked = f"checked in {fine_seconds(drafting.verify_s)}"
    return f"{guesses}, {checked}: {drafting.tokens_per_pass:.1f} tokens a pass"


def _drafts(prediction: Prediction, drafting: Drafting) -> Table:
    """The trade: memory for copies that guess, and more to read, against several tokens a pass."""
    plain_s = drafting.plain_tpot_s
    table = column_table("drafts", "with", "without")
    table.add_row("tokens a pass", f"{drafting.tokens_per_pass:.1f}", "1.0")
    table.add_row("a pass", fine_seconds(drafting.pass_s), fine_seconds(plain_s) if plain_s else NOTHING)
    table.add_row("of it guessing", fine_seconds(drafting.draft_s), NOTHING)
    decode = format_tokens_rate(prediction.decode_tokens_per_s)
    table.add_row("decode", decode, format_tokens_rate(1 / plain_s) if plain_s else NOTHING)
    table.add_row("guesses right", f"{drafting.acceptance:.0%}", NOTHING)
    return table


def _compared(plan: Plan, prediction: Prediction) -> tuple[str, ...]:
    certificate = plan.certificate
    return (
        format_seconds(certificate.seconds) if certificate else NOTHING,
        format_seconds(prediction.ttft_s),
        format_tokens_rate(prediction.decode_tokens_per_s),
        f"{max(0.0, certificate.gap):.1%}" if certificate else NOTHING,
        format_bytes(prediction.bytes_per_token.get(DISK, 0)),
    )


def _busy(prediction: Prediction) -> Table:
    table = column_table("resource", "busy a token", "of the time", "")
    for busy in prediction.busy:
        share = f"{busy.busy_s / prediction.tpot_s:.0%}"
        mark = "<- bottleneck" if busy.resource == prediction.bottleneck else ""
        table.add_row(Text(resource_name(busy.resource)), fine_seconds(busy.busy_s), share, mark)
    return table


def _tiers(prediction: Prediction) -> Table:
    table = column_table("weights from", "a token", "a second")
    for home, nbytes in prediction.bytes_per_token.items():
        table.add_row(Text(tier_name(home)), format_bytes(nbytes), format_rate(nbytes / prediction.tpot_s))
    return table


def _what_ifs(now: Prediction, what_ifs: Sequence[WhatIf]) -> Table:
    table = column_table("what would help", "first token", "decode", "faster")
    table.add_row("as it is", format_seconds(now.ttft_s), format_tokens_rate(now.decode_tokens_per_s), "")
    for one in what_ifs:
        then = one.prediction
        if then is None:
            table.add_row(one.change.text, NOTHING, NOTHING, "no plan")
            continue
        decode = format_tokens_rate(then.decode_tokens_per_s)
        table.add_row(one.change.text, format_seconds(then.ttft_s), decode, f"x {now.tpot_s / then.tpot_s:.2f}")
    return table
