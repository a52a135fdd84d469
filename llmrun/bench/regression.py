"""Whether a benchmark is slower than an earlier one, by more than its own noise. Pure.

Two rows are compared if they are of the same model, case, state of the page cache and sweep value, within the same
memory. *Noise* is half the 95 % confidence interval of the difference of the means, by Welch's t test on the rates of
the repetitions (Welch 1947, https://doi.org/10.1093/biomet/34.1-2.28), as a share of the earlier mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

from llmrun.bench.markdown import printable
from llmrun.bench.row import Row
from llmrun.errors import UsageError
from llmrun.units import rate_digits

CONFIDENCE = 0.95
BUDGET_SLACK = 0.1  # a default budget is what was free at the time: a little more or less is the same run
NONE = "-"

_Key = tuple[object, ...]


@dataclass(frozen=True)
class Comparison:
    """A case now and before. Without a partner one of the rates is ``None``, and so is the ratio.

    Attributes:
        name: model, case, state of the page cache, sweep value.
        before_ts: mean tokens a second of the earlier row.
        ratio: of the means, now over before.
        noise: how far the ratio may be from 1 by chance; ``None`` of fewer than two samples on a side.
        significant: the ratio is further from 1 than the noise; without noise, than the tolerance.
        regressed: significant, and below 1 by more than the tolerance.
    """

    name: str
    before_ts: float | None
    now_ts: float | None
    ratio: float | None = None
    noise: float | None = None
    significant: bool = False
    regressed: bool = False


def compare_rows(now: Sequence[Row], before: Sequence[Row], tolerance: float) -> tuple[Comparison, ...]:
    """Each row of now beside its partner, then what was measured before only. Of a case measured again the last counts.

    Args:
        tolerance: the share by which a rate may be lower, 0 to 1.

    Raises:
        UsageError: ``nothing-to-compare``, no row has a partner.
    """
    left = list({(_key(row), row.ram_budget_bytes, row.vram_budget_bytes): row for row in before}.values())
    found = []
    for row in now:
        partner = _partner(row, left)
        if partner is None:
            found.append(Comparison(_name(row), None, row.avg_ts))
        else:
            left.remove(partner)
            found.append(_compare(row, partner, tolerance))
    if all(one.ratio is None for one in found):
        raise _nothing(now, before)
    return (*found, *(Comparison(_name(row), row.avg_ts, None) for row in left))


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """A line each with the verdict, and below it how it was found; without a final newline."""
    lines = [("", "before t/s", "now t/s", "ratio", "noise", ""), *(_cells(one) for one in comparisons)]
    widths = [max(len(cells[column]) for cells in lines) for column in range(6)]
    table = [
        f"{cells[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells[1:5], widths[1:5], strict=True))
        + f"  {cells[5]}"
        for cells in lines
    ]
    notes = [f"noise: Welch's t test of the repetitions, {CONFIDENCE:.0%} level"]
    if any(one.ratio is not None and one.noise is None for one in comparisons):
        notes.append("too few samples: fewer than two on a side say nothing of noise; the tolerance alone decides")
    return "\n".join(line.rstrip() for line in [*table, *notes])


def _key(row: Row) -> _Key:
    """Not the folder: the same model may lie elsewhere on another machine."""
    return row.model_type, row.model_size, row.model_n_params, row.case, row.cache_state, row.sweep


def _partner(row: Row, rows: Sequence[Row]) -> Row | None:
    same = [one for one in rows if _key(one) == _key(row) and _same_budgets(one, row)]
    return min(same, key=lambda one: abs(one.ram_budget_bytes - row.ram_budget_bytes), default=None)


def _same_budgets(one: Row, other: Row) -> bool:
    pairs = ((one.ram_budget_bytes, other.ram_budget_bytes), (one.vram_budget_bytes, other.vram_budget_bytes))
    return all(abs((a or 0) - (b or 0)) <= BUDGET_SLACK * max(a or 0, b or 0) for a, b in pairs)


def _compare(now: Row, before: Row, tolerance: float) -> Comparison:
    ratio = now.avg_ts / before.avg_ts
    noise = _noise(now, before)
    significant = abs(ratio - 1) > (tolerance if noise is None else noise)
    return Comparison(
        _name(now), before.avg_ts, now.avg_ts, ratio, noise, significant, significant and ratio < 1 - tolerance
    )


def _noise(now: Row, before: Row) -> float | None:
    """Half the confidence interval over the earlier mean, degrees of freedom by Welch and Satterthwaite."""
    if min(len(now.samples_ns), len(before.samples_ns)) < 2:
        return None
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes a second to import

    sides = [(row.stddev_ts**2 / len(row.samples_ns), len(row.samples_ns) - 1) for row in (now, before)]
    variance = sum(part for part, _ in sides)
    if not variance:
        return 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in sides)
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * sqrt(variance) / before.avg_ts


def _name(row: Row) -> str:
    parts = [row.model_type, row.case.name, row.cache_state, row.sweep]
    return printable(", ".join(part for part in parts if part))


def _cells(one: Comparison) -> tuple[str, str, str, str, str, str]:
    noise = NONE if one.noise is None else f"±{one.noise:.3f}"
    ratio = NONE if one.ratio is None else f"{one.ratio:.3f}"
    return (one.name, _rate(one.before_ts), _rate(one.now_ts), ratio, noise, _verdict(one))


def _rate(value: float | None) -> str:
    return NONE if value is None else f"{value:.{rate_digits(value)}f}"


def _verdict(one: Comparison) -> str:
    if one.ratio is None:
        return "not measured now" if one.now_ts is None else "no partner: another case or memory budget"
    few = ", too few samples" if one.noise is None else ""
    if one.regressed:
        return f"REGRESSION{few}"
    if one.significant:
        return f"{'faster' if one.ratio > 1 else 'slower, within the tolerance'}{few}"
    return f"{'within the tolerance' if few else 'within the noise'}{few}"


def _nothing(now: Sequence[Row], before: Sequence[Row]) -> UsageError:
    return UsageError(
        "nothing-to-compare",
        f"none of the {len(now)} rows has a partner among the {len(before)} earlier ones: "
        f"now {_list(now)}; before {_list(before)}",
        hint="give the same model, `-p`, `-n`, `-d` and `--ram` as the earlier run",
    )


def _list(rows: Sequence[Row]) -> str:
    shown = dict.fromkeys(map(_name, rows))
    return "; ".join(_some(list(shown)))


def _some(names: list[str]) -> Iterator[str]:
    yield from names[:3]
    if len(names) > 3:
        yield f"and {len(names) - 3} more"
