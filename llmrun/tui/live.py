"""What is drawn while a model works, from the events of the work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from llmrun.checkpoint.spec import ModelSpec
from llmrun.events import Accepted, Event
from llmrun.hardware.speeds import Speeds
from llmrun.metrics import MetricsState, apply
from llmrun.planner.plan import Plan
from llmrun.tui.ui import Ui


class LiveView:
    """Folds events into figures, and draws them as long as it lives."""

    def __init__(self, ui: Ui, stream: TextIO) -> None:
        self.ui = ui
        self.state = MetricsState()
        self._stream = stream

    def apply(self, event: Event) -> None:
        """Take an event; a request that is accepted begins with figures of its own."""
        if isinstance(event, Accepted):
            self.state = MetricsState(memory=self.state.memory)
        self.state = apply(self.state, event)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The screen is free for other text meanwhile."""
        yield


@contextmanager
def live_view(
    ui: Ui, spec: ModelSpec, plan: Plan, speeds: Speeds | None, stream: TextIO | None = None
) -> Iterator[LiveView]:
    """A view of a run, drawn on ``stream`` (standard error) until the end of the ``with``, then gone.

    Args:
        speeds: what was measured of this host, to hold the rates against.
    """
    yield LiveView(ui, stream or sys.stderr)
