"""A picture of the dashboard of a real run, for the README.

    python benchmarks/dashboard_svg.py smollm2:135m docs/dashboard.svg --ram 700MiB --at-token 48

Runs the model, and takes the picture while a layer of that token is being computed.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dashboard_run import answering
from rich.console import Console
from rich.terminal_theme import MONOKAI

from llmrun.cli.run import Running
from llmrun.events import Event, LayerDone, Token
from llmrun.metrics import MetricsState, apply
from llmrun.tui.dashboard.facts import facts
from llmrun.tui.dashboard.lines import Lines, last_rows
from llmrun.tui.dashboard.screen import dashboard

TEXT_ROWS = 3


def picture(running: Running, events: Iterator[Event], at_token: int, width: int) -> Lines:
    """The end of the answer and the dashboard, some layers into the token after ``at_token``, or at the end."""
    state, text, layers = MetricsState(), "", 0
    for event in events:
        state = apply(state, event)
        text += event.text if isinstance(event, Token) else ""
        layers += isinstance(event, LayerDone) and state.new_tokens >= at_token
        if layers > running.spec.n_layers // 3 and state.rings and any(ring.in_flight for ring in state.rings.values()):
            break
    answer = [((row, ""),) for line in text.splitlines() for row in last_rows(line, width, TEXT_ROWS) or [""]]
    known = facts(running.spec, running.plan, running.speeds)
    return Lines((*answer[-TEXT_ROWS:], *dashboard(state, known, width, 100, time.monotonic()).lines))


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    parser.add_argument("--ram")
    parser.add_argument("--at-token", type=int, default=48)
    parser.add_argument("--width", type=int, default=100)
    args = parser.parse_args()
    with answering(args.model, args.ram, args.at_token + 8) as (running, events):
        lines = picture(running, events, args.at_token, args.width)
    console = Console(record=True, width=args.width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(lines, end="")
    ram = f" --ram {args.ram}" if args.ram else ""
    title = f"llmrun chat {args.model}{ram} --ui dashboard"
    args.file.write_text(console.export_svg(title=title, theme=MONOKAI), encoding="utf-8")
    print(lines.text)
    print(args.file, file=sys.stderr)


if __name__ == "__main__":
    main()
