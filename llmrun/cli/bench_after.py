"""What ``llmrun bench`` does with its rows when all are there: a picture of the sweep, a comparison with before."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmrun.errors import LlmrunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrun.bench.row import Row
    from llmrun.bench.sweep import Sweep

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Afterwards:
    """What is done with the rows when all are there."""

    before: Sequence[Row] | None
    tolerance: float
    plot: Path | None
    sweep: Sweep | None


def ask_afterwards(
    compare: Path | None, tolerance: float, sweep: str | None, plot: Path | None, plan: Path | None
) -> Afterwards:
    """What is to be done; what can be refused is refused before anything is measured.

    Raises:
        UsageError: a file of ``--compare`` that cannot be read, a ``--sweep`` or ``--plot`` that cannot be.
    """
    from llmrun.bench.plot import check_plot
    from llmrun.bench.rows_file import read_rows
    from llmrun.bench.sweep import parse_sweep

    if sweep and plan:
        raise UsageError("bad-option", "--plan has memory and a context already", hint="leave out --plan or --sweep")
    if plot and not sweep:
        raise UsageError("bad-option", "--plot draws a sweep, and there is none", hint="`--sweep ram=2GiB,4GiB`")
    if plot:
        check_plot(plot)
    return Afterwards(read_rows(compare) if compare else None, tolerance, plot, parse_sweep(sweep) if sweep else None)


def finish(rows: Sequence[Row], afterwards: Afterwards, notify: Notify) -> None:
    """Show the sweep in a terminal, draw it, compare.

    Raises:
        LlmrunError: ``regression``, a case is slower than before by more than the tolerance.
        UsageError: ``nothing-to-compare``.
        DeviceError: ``write-failed``, the picture.
    """
    from llmrun.bench.plot import write_plot
    from llmrun.tui.bars import has_blocks, sweep_text

    if afterwards.sweep and sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        notify("\n" + sweep_text(rows, width, has_blocks(sys.stderr)))
    if afterwards.plot:
        write_plot(rows, afterwards.plot)
    if afterwards.before is not None:
        _compare(rows, afterwards.before, afterwards.tolerance, notify)


def _compare(rows: Sequence[Row], before: Sequence[Row], tolerance: float, notify: Notify) -> None:
    from llmrun.bench.regression import compare_rows, comparison_table

    comparisons = compare_rows(rows, before, tolerance)
    notify(comparison_table(comparisons))
    if slower := [one for one in comparisons if one.regressed]:
        worst = min(slower, key=lambda one: one.ratio or 0.0)
        raise LlmrunError(
            "regression",
            f"{len(slower)} of {len(rows)} cases are more than {tolerance:.0%} slower than before",
            hint=f"the worst is {worst.name}, at {worst.ratio or 0.0:.3f} of its rate; "
            "measure again on a quiet machine to be sure",
        )
