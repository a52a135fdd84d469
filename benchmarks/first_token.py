"""Time to first token with a cold cache, against one plain read of the checkpoint; in turns.

    python benchmarks/first_token.py MODEL --ram 2.5GiB --machine 3GiB --runs 5

The plain read is direct I/O by the fastest of some shapes, its process already running. TTFT is counted from the start
of the process, and from the end of the imports, by which time llmrun has been reading for as long as they took.
transformers imports a family's code only when the model is built, so the end of the imports is that of the last module
before the engine is ready. The longer time from the end of the import of torch, transformers and llmrun's engine is
printed too. The page cache, with the files of Python and torch, is dropped before each run. Needs root.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from common import (
    MB,
    Finished,
    add_machine,
    argument_parser,
    checkpoint_files,
    model_folder,
    note,
    print_host,
    ratios,
    run_tool_on,
    spread,
    table,
    write_samples,
)
from limited import Limits
from reader import Reading, best_shape

PROMPT = "What is the capital of France? Answer in one sentence."


def times(finished: Finished) -> dict[str, float]:
    """Seconds to the first token from each beginning, and when the imports were done."""
    first_s = finished.report.answers[0].token_s[0]
    imported_s, engine_s = finished.report.imported_s, finished.report.engine_imported_s
    assert engine_s is not None
    return {
        "from_start_s": first_s - finished.began_s,
        "from_engine_import_s": first_s - engine_s,
        "from_imports_s": first_s - imported_s,
        "imports_s": imported_s - finished.began_s,
        "engine_import_s": engine_s - finished.began_s,
    }


def measure(folder: Path, shape: str, args: Any) -> tuple[list[Reading], list[dict[str, float]]]:  # noqa: ANN401
    """Plain reads and first tokens in turns."""
    limits = Limits(args.machine, args.disk)
    options = ["--ram", str(args.ram), "--chat", "--new", "1", "-p", PROMPT]
    readings, firsts = [], []
    for run in range(args.runs):
        plain, _ = run_tool_on(limits, folder, "reader.py", str(folder), "--once", shape)
        readings.append(Reading(**json.loads(plain.output)))
        ours, _ = run_tool_on(limits, folder, "run_llmrun.py", str(folder), *options)
        firsts.append(times(ours))
        note(f"run {run + 1}: plain read {readings[-1].seconds:.2f} s, {firsts[-1]}")
    return readings, firsts


def rows(readings: list[Reading], firsts: list[dict[str, float]]) -> list[list[str]]:
    """One row a figure."""
    reads_s = [reading.seconds for reading in readings]
    from_start_s = [first["from_start_s"] for first in firsts]
    from_imports_s = [first["from_imports_s"] for first in firsts]

    def of(name: str) -> str:
        return spread([first[name] for first in firsts])

    beyond_s = [start - 1.15 * read for start, read in zip(from_start_s, reads_s, strict=True)]
    return [
        ["plain read, s", spread(reads_s)],
        ["plain read, MB/s", spread([reading.bytes_per_s / MB for reading in readings], ".0f")],
        ["llmrun's engine, torch and transformers imported after, s", of("engine_import_s")],
        ["last module imported after, s", of("imports_s")],
        ["TTFT from the import of engine, torch and transformers, s", of("from_engine_import_s")],
        ["TTFT from the end of the imports, s", spread(from_imports_s)],
        ["that / plain read", spread(ratios(from_imports_s, reads_s), ".3f")],
        ["TTFT from the start of the process, s", spread(from_start_s)],
        ["that less 1.15 x plain read, s", spread(beyond_s)],
    ]


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    add_machine(parser)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    folder = model_folder(args.model).resolve()
    facts = print_host(folder)
    shape, shapes = best_shape(checkpoint_files(folder))
    readings, firsts = measure(folder, str(shape), args)
    print(table([f"cold, plain reader {shape}", f"median of {args.runs} (lowest to highest)"], rows(readings, firsts)))
    reads_s = [reading.seconds for reading in readings]
    samples = {"host": facts, "shapes": shapes, "plain_read_s": reads_s, "first_token": firsts}
    write_samples(args.json, {**samples, "median_plain_read_s": statistics.median(reads_s)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
