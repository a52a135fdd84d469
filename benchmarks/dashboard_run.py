"""One answer with a view of it, for the benchmarks of the dashboard: `dashboard_cost.py` runs it as a process.

    python benchmarks/dashboard_run.py MODEL --ui dashboard --tokens 64 --ram 2GiB

It draws on standard error and prints one line of JSON: the decode rate, and what the thread that draws took of a core.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from llmrun.cli.run import Running, RunSettings, start
from llmrun.engine.session import Message
from llmrun.events import Event
from llmrun.metrics import MetricsState
from llmrun.settings import SamplingSettings
from llmrun.tui.live import live_view
from llmrun.tui.ui import Ui
from llmrun.units import parse_bytes

QUESTION = "Tell me at length how a library of a thousand books is read by someone who owns a single shelf."


@contextmanager
def answering(model: str, ram: str | None, tokens: int) -> Iterator[tuple[Running, Iterator[Event]]]:
    """A model, and the events of its answer to ``QUESTION``, the likeliest token each time."""
    ram_bytes = parse_bytes(ram) if ram else None
    with start(RunSettings(model, ram_bytes=ram_bytes), lambda note: None) as running:
        tokenizer = running.engine.tokenizer
        prompt = tokenizer.encode_chat([Message("user", QUESTION)])
        sampling = SamplingSettings(temperature=0.0, max_tokens=tokens)
        with closing(running.engine.generate(prompt, sampling, tokenizer.stream())) as events:
            yield running, events


def measure(model: str, ram: str | None, tokens: int, ui: Ui) -> tuple[MetricsState, float, float]:
    """What the run measured, and the CPU seconds of the drawing thread with the seconds in which it drew."""
    with answering(model, ram, tokens) as (running, events):
        began_s = time.monotonic()
        with live_view(ui, running.spec, running.plan, running.speeds) as view:
            for event in events:
                view.apply(event)
            drawers = [thread for thread in threading.enumerate() if thread.name == "drawer"]
            drawing_s = sum(time.clock_gettime(time.pthread_getcpuclockid(thread.ident)) for thread in drawers)
        return view.state, drawing_s, time.monotonic() - began_s


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--ui", type=Ui, default=Ui.DASHBOARD)
    parser.add_argument("--ram")
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    state, drawing_s, seconds = measure(args.model, args.ram, args.tokens, args.ui)
    figures = {"tokens_per_s": state.decode_tokens_per_s, "drawing_s": drawing_s, "seconds": seconds}
    print(json.dumps(figures | {"new_tokens": state.new_tokens}))


if __name__ == "__main__":
    main()
