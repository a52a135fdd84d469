"""Decode and plain reading in turns within one process; `larger_than_memory.py` starts this on its small machine.

    python benchmarks/segments.py MODEL --ram 2.5GiB --pairs 5 --tokens 3 --seconds 5

A segment of decode is a generation of a few tokens that goes on where the last one stopped (the KV cache has its
prompt). Measured is what lies between its first and its last token, so the ring is in the middle of its work at both
ends. Then the engine is idle: its readers fill the ring and stop, and the plain reader has the disk to itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from common import checkpoint_files, note, process_counters
from reader import PlainReader, Shape, best_shape
from run_llmrun import Running, encode, running

from llmrun.events import BytesRead, Event, LayerDone, Stall, Token
from llmrun.planner import Plan
from llmrun.settings import SamplingSettings
from llmrun.units import format_rate, parse_bytes

PROMPT = "Tell me a long story about a lighthouse keeper and the sea."
IDLE_S = 0.3


@dataclass(frozen=True)
class Segment:
    """What happened between the first and the last token of a segment."""

    tokens: int  # passes over the model
    seconds: float
    nbytes: int  # from disk
    stall_s: float
    compute_s: dict[str, float]  # time not stalled, by what was computed

    @property
    def bytes_per_s(self) -> float:
        """Bytes read per token over seconds per token."""
        return self.nbytes / self.seconds


def measure(events: Iterable[Event], plan: Plan) -> Segment:
    """Fold the events from the first token's to the last token's."""
    first_s = last_s = 0.0
    tokens, nbytes, waited_s, stall_s = 0, 0, 0.0, 0.0
    compute_s: defaultdict[str, float] = defaultdict(float)
    for event in events:
        if not isinstance(event, Token) and not first_s:
            continue
        if isinstance(event, Stall):
            waited_s += event.seconds
        elif isinstance(event, BytesRead) and event.tier == "disk":
            nbytes += event.nbytes
        elif isinstance(event, LayerDone | Token):
            if first_s:
                compute_s[part(event, plan)] += event.at_s - last_s - waited_s
                stall_s += waited_s
                tokens += isinstance(event, Token)
            first_s, last_s, waited_s = first_s or event.at_s, event.at_s, 0.0
    return Segment(tokens, last_s - first_s, nbytes, stall_s, dict(compute_s))


def part(event: LayerDone | Token, plan: Plan) -> str:
    """What was computed before the event."""
    if isinstance(event, Token):
        return "sampling"
    if event.unit == "head":
        return "head"
    return "resident layers" if plan.placement(event.unit).resident else "streamed layers"


class Decoder:
    """One long answer, a few tokens at a time."""

    def __init__(self, run: Running) -> None:
        run.engine.tokenizer.end_token_ids = frozenset()  # the answer shall not end before the benchmark does
        self._run = run
        self._ids = encode(run.engine, PROMPT, chat=run.engine.tokenizer.has_chat_template)

    def decode(self, tokens: int) -> Segment:
        """Go on for ``tokens`` passes after the first."""
        engine = self._run.engine
        settings = SamplingSettings(temperature=0, max_tokens=tokens + 1)
        events = list(engine.generate(self._ids, settings, engine.tokenizer.stream()))
        ends = [index for index, event in enumerate(events) if isinstance(event, Token)]
        self._ids += [event.token_id for event in events if isinstance(event, Token)]
        return measure(events[: ends[-1] + 1], self._run.plan)


def wait_until_idle() -> None:
    """Wait until the engine's readers have filled the ring."""
    before = -1
    while (now := process_counters()["read_bytes"]) != before:
        before = now
        time.sleep(IDLE_S)


def main() -> int:
    """Measure pairs and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ram", type=parse_bytes, required=True)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=3, help="passes of each segment")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the plain reader reads")
    parser.add_argument("--shape", type=Shape.parse, help="of the plain reader (default: the fastest here)")
    args = parser.parse_args()
    with running(args.model, args.ram) as run:
        decoder = Decoder(run)
        decoder.decode(1)  # load
        wait_until_idle()
        files = checkpoint_files(Path(run.spec.folder))
        shape, shapes = (args.shape, {}) if args.shape else best_shape(files)
        reader = PlainReader(files, shape)
        readings, segments = [reader.read_for(args.seconds)], []
        for _ in range(args.pairs):
            segments.append(decoder.decode(args.tokens))
            wait_until_idle()
            readings.append(reader.read_for(args.seconds))
            note(f"  llmrun {format_rate(segments[-1].bytes_per_s)}, reader {format_rate(readings[-1].bytes_per_s)}")
        resident = sum(placement.resident for placement in run.plan.placements)
    print(
        json.dumps(
            {
                "shape": str(shape),
                "shapes": shapes,
                "readings": [asdict(reading) for reading in readings],
                "segments": [asdict(segment) for segment in segments],
                "resident_units": resident,
                "units": len(run.plan.placements),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
