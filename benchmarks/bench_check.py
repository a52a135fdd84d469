"""Whether the figures of `llmrun bench` are those that one takes from outside the process.

    python benchmarks/bench_check.py smollm2:135m --ram 600MiB -n 128 --runs 3

The command runs with 1 and with 1 + REPETITIONS repetitions. The difference of the two wall times, and of the bytes
that the kernel counts for the two processes (`ru_inblock`), is that of so many repetitions: of n decoded tokens each,
after one that is not timed. Speeds are measured before, so that no run measures them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from common import argument_parser, model_folder, note, print_host, spread, table, write_samples

REPETITIONS = 3
SECTOR_BYTES = 512  # of ru_inblock


@dataclass(frozen=True)
class Seen:
    """One command: its row, and what was seen of it from outside."""

    row: dict[str, Any]
    wall_s: float
    read_bytes: int


@dataclass(frozen=True)
class Pair:
    """The command with few and with more repetitions; what the latter took beyond the former, for one token."""

    few: Seen
    more: Seen

    @property
    def passes(self) -> int:
        """Of the repetitions that one has more, with the token before those that are timed."""
        return REPETITIONS * (int(self.more.row["n_gen"]) + 1)

    @property
    def rate(self) -> float:
        """Tokens a second: those of `bench` over those from outside."""
        return float(self.more.row["avg_ts"]) * (self.more.wall_s - self.few.wall_s) / self.passes

    @property
    def nbytes(self) -> float | None:
        """Bytes of a token: those of `bench` over those from outside; ``None`` where nothing is read."""
        outside = (self.more.read_bytes - self.few.read_bytes) / self.passes
        return float(self.more.row["disk_bytes_per_token"]) / outside if outside > 0 else None


def run(command: list[str], repetitions: int) -> Seen:
    """The command from start to end."""
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock, time.monotonic()
    done = subprocess.run([*command, "-r", str(repetitions)], stdout=subprocess.PIPE, check=True)
    wall_s = time.monotonic() - began_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
    return Seen(json.loads(done.stdout)[0], wall_s, (after - before) * SECTOR_BYTES)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("model", help="folder, alias or hub id")
    parser.add_argument("--ram", required=True, metavar="SIZE", help="so little that a part is streamed")
    parser.add_argument("-n", "--new", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    folder = model_folder(args.model)
    facts = print_host(folder)
    llmrun = [sys.executable, "-m", "llmrun"]
    subprocess.run([*llmrun, "inspect", "--measure", "--path", str(folder)], stdout=subprocess.DEVNULL, check=True)
    command = [*llmrun, "bench", str(folder), "-p", "0", "-n", str(args.new), "--ram", args.ram, "--ui", "none"]
    command += ["-o", "json"]
    run(command, 1)  # the model's own layers are measured in the first
    pairs = []
    for _ in range(args.runs):
        pairs.append(Pair(run(command, 1), run(command, 1 + REPETITIONS)))
        note(f"{pairs[-1].rate:.3f} {pairs[-1].nbytes}")
    rows = [
        [
            "tokens a second",
            f"{median(pair.more.row['avg_ts'] for pair in pairs):.3f}",
            spread([p.rate for p in pairs]),
        ],
        [
            "bytes a token",
            f"{median(pair.more.row['disk_bytes_per_token'] for pair in pairs):,.0f}",
            spread([p.nbytes for p in pairs if p.nbytes], ".3f"),
        ],
    ]
    print(table(["", "`llmrun bench`", "over what is seen from outside"], rows))
    write_samples(args.json, {"host": facts, "pairs": [asdict(pair) for pair in pairs]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
