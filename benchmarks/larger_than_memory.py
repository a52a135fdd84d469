"""A model larger than the memory: the right tokens, the promised memory, close to the speed of the disk.

    python benchmarks/larger_than_memory.py MODEL --ram 2.5GiB --machine 3GiB
    python benchmarks/larger_than_memory.py MODEL --ram 2.5GiB --machine 3GiB --disk 1GiB --part decode

`tokens`: three greedy answers of llmrun on the small machine against plain transformers on the whole one, which the
model has to fit, with peak anonymous memory, and what was written anywhere. `decode`: bytes read per token over seconds
per token, against a plain direct-I/O reader of the same files, in turns (see `segments.py`). Needs root.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import (
    MB,
    Answer,
    Finished,
    add_machine,
    argument_parser,
    gib,
    model_folder,
    note,
    print_host,
    run_tool,
    run_tool_on,
    spread,
    table,
    tool,
    wait_for,
    write_samples,
)
from limited import Limits, SmallMachine, Usage
from reader import Reading
from segments import Segment

PROMPTS = (
    "Write a short story about a lighthouse keeper and the sea.",
    "Explain how a bicycle stays upright, step by step.",
    "List ten rules for writing clear English, with an example of each.",
)


def compare(ours: Answer, reference: Answer) -> str:
    """Equal, or where they first differ and what transformers thought of the two tokens there."""
    assert ours.prompt_ids == reference.prompt_ids, "the two were asked different things"
    if ours.token_ids == reference.token_ids:
        return f"equal ({len(ours.token_ids)} tokens)"
    pairs = zip(ours.token_ids, reference.token_ids, strict=False)
    shorter = min(len(ours.token_ids), len(reference.token_ids))
    at = next((index for index, (own, other) in enumerate(pairs) if own != other), shorter)
    top = ", ".join(f"{token} {logit:.3f}" for token, logit in reference.top_logits[at][:2])
    own_token = ours.token_ids[at] if at < len(ours.token_ids) else "end"
    return f"differs at token {at + 1}: llmrun {own_token}; transformers' two likeliest there: {top}"


def files_in(folder: Path) -> dict[str, int]:
    """Bytes of every file below ``folder``."""
    return {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of the checkpoint's files."""
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir()}


def answer_on_small_machine(folder: Path, args: Any) -> tuple[Finished, Usage, dict[str, int]]:  # noqa: ANN401
    """Three answers of llmrun, its home and every cache in a new folder; and what was written there."""
    options = [option for prompt in PROMPTS for option in ("-p", prompt)]
    command = tool("run_llmrun.py", str(folder), "--ram", str(args.ram), "--chat", "--new", str(args.new), *options)
    with tempfile.TemporaryDirectory() as scratch, SmallMachine(Limits(args.machine, args.disk), folder) as machine:
        env = {"HOME": scratch, "TMPDIR": scratch, "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
        began_s = time.monotonic()
        process = machine.popen(command, stdout=subprocess.PIPE, env=env, cwd=Path(scratch))
        finished = wait_for(process, began_s)
        return finished, machine.usage(), files_in(Path(scratch))


def tokens(folder: Path, args: Any) -> dict[str, Any]:  # noqa: ANN401
    """The first part; prints its rows."""
    options = [option for prompt in PROMPTS for option in ("-p", prompt)]
    note("transformers, in free memory")
    plain = run_tool("run_transformers.py", str(folder), "--chat", "--logits", "--new", str(args.new), *options)
    note("llmrun, on the small machine")
    before = state_of(folder)
    ours, usage, written = answer_on_small_machine(folder, args)
    verdicts = [compare(*pair) for pair in zip(ours.report.answers, plain.report.answers, strict=True)]
    untouched = "unchanged" if state_of(folder) == before else "CHANGED"
    rows = [[f"tokens, prompt {index + 1}", verdict] for index, verdict in enumerate(verdicts)]
    rows += [
        ["peak anonymous memory", f"{gib(usage.peak_anonymous_bytes)} of {gib(args.ram)} allowed"],
        ["peak RSS (mapped files included)", gib(ours.report.peak_rss_bytes)],
        ["exit status", str(ours.status)],
        ["files written (home, caches, working folder)", f"{len(written)} files, {sum(written.values())} bytes"],
        ["bytes the process sent to storage", str(ours.report.written_bytes)],
        ["checkpoint folder", untouched],
    ]
    print(table(["on the small machine", "measured"], rows))
    return {
        "verdicts": verdicts,
        "usage": asdict(usage),
        "written": written,
        "llmrun": asdict(ours.report),
        "transformers": asdict(plain.report),
    }


@dataclass(frozen=True)
class Decoded:
    """Segments of decode between plain reads, on a small machine."""

    result: dict[str, Any]  # as `segments.py` prints it
    usage: Usage

    @property
    def segments(self) -> list[Segment]:
        """What was measured between a segment's first and last token."""
        return [Segment(**segment) for segment in self.result["segments"]]

    @property
    def around(self) -> list[float]:
        """Of each segment, bytes/s of the plain reads before and after it."""
        readings = [Reading(**reading) for reading in self.result["readings"]]
        return [(before.bytes_per_s + after.bytes_per_s) / 2 for before, after in pairwise(readings)]

    @property
    def pairs(self) -> list[float]:
        """Of each segment, how busy it kept the disk: its bytes/s over those of the plain reads."""
        return [segment.bytes_per_s / rate for segment, rate in zip(self.segments, self.around, strict=True)]

    @property
    def sample(self) -> dict[str, Any]:
        """All of it, for `--json`."""
        return {**self.result, "ratios": self.pairs, "usage": asdict(self.usage)}


def decoded(folder: Path, args: Any) -> Decoded:  # noqa: ANN401
    """Measure it, as the options say."""
    options = ["--ram", args.ram, "--pairs", args.pairs, "--tokens", args.tokens, "--seconds", args.seconds]
    limits = Limits(args.machine, args.disk)
    finished, usage = run_tool_on(limits, folder, "segments.py", str(folder), *map(str, options))
    return Decoded(json.loads(finished.output), usage)


def decode(folder: Path, args: Any) -> dict[str, Any]:  # noqa: ANN401
    """The second part; prints its row."""
    note("decode and plain reads in turns")
    found = decoded(folder, args)
    print(decode_rows(found))
    return found.sample


def decode_rows(found: Decoded) -> str:
    """One row a figure."""
    segments, result = found.segments, found.result
    per_token = [segment.seconds / segment.tokens for segment in segments]
    names = sorted({name for segment in segments for name in segment.compute_s})
    compute = {
        name: statistics.median(1000 * segment.compute_s.get(name, 0) / segment.tokens for segment in segments)
        for name in names
    }
    rows = [
        ["llmrun / plain reader", spread(found.pairs, ".3f")],
        ["llmrun, MB/s", spread([segment.bytes_per_s / MB for segment in segments], ".0f")],
        [f"plain reader ({result['shape']}), MB/s", spread([rate / MB for rate in found.around], ".0f")],
        ["MB read per token", spread([segment.nbytes / segment.tokens / MB for segment in segments], ".0f")],
        ["s per token", spread(per_token, ".3f")],
        ["stalled, share of the time", spread([segment.stall_s / segment.seconds for segment in segments])],
        ["not stalled, ms per token", ", ".join(f"{name} {value:.1f}" for name, value in compute.items())],
        ["units resident", f"{result['resident_units']} of {result['units']}"],
    ]
    return table(["decode", f"median of {len(segments)} (lowest to highest)"], rows)


def add_segments(parser: ArgumentParser) -> None:
    """Options of what `decoded` measures."""
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=3, help="passes of a segment of decode")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a plain read between two segments")


def main() -> int:
    """Both parts, or one."""
    parser = argument_parser(__doc__)
    add_machine(parser)
    parser.add_argument("--part", choices=["tokens", "decode", "all"], default="all")
    parser.add_argument("--new", type=int, default=64, help="tokens of each answer")
    add_segments(parser)
    args = parser.parse_args()
    folder = model_folder(args.model).resolve()
    samples: dict[str, Any] = {"host": print_host(folder)}
    if args.part != "decode":
        samples["tokens"] = tokens(folder, args)
    if args.part != "tokens":
        samples["decode"] = decode(folder, args)
    write_samples(args.json, samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
