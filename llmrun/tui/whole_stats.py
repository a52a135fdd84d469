"""What ``/stats`` says: the table of figures, and the dashboard as it stood when the answer ended. Pure."""

from __future__ import annotations

from llmrun.metrics import MetricsState
from llmrun.tui.dashboard.facts import Facts
from llmrun.tui.dashboard.screen import dashboard
from llmrun.tui.stats import stats_text

ALL_LINES = 1000


def whole_stats_text(state: MetricsState, known: Facts, width: int, *, unicode: bool) -> str:
    """One under the other, in at most ``width`` columns; the table takes 80."""
    ended_s = state.recent[-1].at_s if state.recent else 0.0
    return f"{stats_text(state)}\n\n{dashboard(state, known, width, ALL_LINES, ended_s, unicode=unicode).text}"
