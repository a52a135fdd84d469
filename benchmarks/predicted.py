"""What llmrun predicts of a run against what the run then measures: speed, first token, memory.

    python benchmarks/predicted.py M2 M4 M8 --runs 3 --json predicted.json
    python benchmarks/predicted.py BF16 Q8 Q4 FILE.gguf --each --runs 3

M2, M4 and M8 are three checkpoints of about 2, 4 and 8 GB (`benchmarks/inflate.py`). With `--each` any number of
checkpoints, of any formats, have the same set-ups: a part of the weights streamed, and all of them resident. For each
set-up the host is measured once on the small machine (`llmrun inspect --measure`), then `llmrun chat --json` runs with
a cold page cache; its JSON has both figures. The prompt fills the context but for the new tokens, so that what is
reserved is used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from common import argument_parser, measure_machine, model_folder, note, print_host, table, wait_for, write_samples
from limited import Limits, SmallMachine

from llmrun.checkpoint import read_spec
from llmrun.units import GIB, MIB, format_bytes, parse_bytes

SETUPS = (  # model, share of its bytes that is allowed, context, disk, new tokens
    (0, 0.70, 512, None, 24),
    (0, 1.20, 4096, None, 48),
    (0, 0.60, 4096, "500M", 8),
    (0, 1.20, 512, "1G", 48),
    (1, 0.30, 512, None, 16),
    (1, 0.50, 4096, None, 16),
    (1, 0.80, 512, "1G", 12),
    (1, 0.50, 512, "500M", 8),
    (1, 1.20, 512, None, 32),
    (2, 0.20, 512, None, 10),
    (2, 0.40, 512, None, 10),
    (2, 0.60, 512, "1G", 8),
    (2, 0.80, 512, None, 16),
)
EACH = (  # share of the model's bytes that is allowed beside BASE_BYTES, context, new tokens
    (0.4, 512, 16),
    (1.2, 2048, 24),
)
BASE_BYTES = 768 * MIB  # of a process with a small model
TEXT = "The lighthouse keeper wrote down the wind, the ships and the state of the lamp every night. "


@dataclass(frozen=True)
class Setup:
    """One row of the table."""

    folder: Path
    share: float
    context_tokens: int
    disk: str | None
    new_tokens: int
    base_bytes: int = 0

    @property
    def weight_bytes(self) -> int:
        """The model's."""
        return read_spec(self.folder).nbytes

    @property
    def ram_bytes(self) -> int:
        """The budget of the whole process."""
        return self.base_bytes + int(self.share * self.weight_bytes)

    @property
    def limits(self) -> Limits:
        """The small machine: room beside the budget for the files that Python and torch map."""
        disk_bytes_per_s = parse_bytes(self.disk) if self.disk else None
        return Limits(self.ram_bytes + 1 * GIB, disk_bytes_per_s)

    def label(self) -> list[str]:
        """The cells that say which it is."""
        disk = f"{self.disk}iB/s" if self.disk else "whole"
        model = f"{self.weight_bytes / 1e9:.1f} GB {read_spec(self.folder).format_words}"
        share = f"{self.share:.0%}" + (f" + {format_bytes(self.base_bytes)}" if self.base_bytes else "")
        return [model, share, f"{self.context_tokens:,}", disk]


def run(setup: Setup, prompt: Path, caches: Mapping[str | None, Path]) -> dict[str, Any]:
    """One run: the JSON that llmrun prints."""
    options = ["-f", str(prompt), "--temperature", "0", "--max-tokens", str(setup.new_tokens), "--json"]
    sizes = ["--ram", str(setup.ram_bytes), "--context", str(setup.context_tokens)]
    environment = os.environ | {"LLMRUN_CACHE": str(caches[setup.disk])}
    with SmallMachine(setup.limits, setup.folder) as machine:
        command = [sys.executable, "-m", "llmrun", "chat", str(setup.folder), *options, *sizes]
        finished = wait_for(machine.popen(command, stdout=subprocess.PIPE, env=environment), 0.0)
        report: dict[str, Any] = json.loads(finished.output)
        return report | {"peak_anonymous_bytes": machine.usage().peak_anonymous_bytes}


def write_prompt(setup: Setup, file: Path) -> None:
    """A text that leaves room in the context for the chat template and the new tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(setup.folder)
    room = setup.context_tokens - setup.new_tokens - 64
    ids = tokenizer(TEXT * (room // 8))["input_ids"][:room]
    file.write_text(tokenizer.decode(ids))


def row(setup: Setup, runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, float]]:
    """The cells of a set-up, medians of its runs; and the ratios measured / predicted."""
    speed, first, peak = (
        ([value(run) for run in runs], [value(run["predicted"] | {"memory": None}) for run in runs])
        for value in (lambda r: r["decode_tokens_per_s"], lambda r: r["ttft_s"], _peak)
    )
    ratios = {
        name: median(measured) / median(predicted)
        for name, (measured, predicted) in {"decode": speed, "ttft": first, "peak": peak}.items()
    }
    cells = [
        f"{median(speed[0]):.3g} / {median(speed[1]):.3g}",
        f"{ratios['decode']:.3f}",
        f"{median(first[0]):.1f} / {median(first[1]):.1f}",
        f"{ratios['ttft']:.3f}",
        f"{median(peak[0]) / MIB:,.0f} / {median(peak[1]) / MIB:,.0f}",
        f"{ratios['peak']:.3f}",
        f"{max(peak[0]) / setup.ram_bytes:.3f}",
    ]
    return setup.label() + cells, ratios


def _peak(report: Mapping[str, Any]) -> float:
    memory = report["memory"]
    return float(memory["cpu"]["peak_bytes"] if memory else report["peak_bytes"]["cpu"])


def set_ups(folders: Sequence[Path], *, each: bool) -> list[Setup]:
    """The rows of the table."""
    if not each:
        return [Setup(folders[model], *rest) for model, *rest in SETUPS]
    return [
        Setup(folder, share, context_tokens, None, new_tokens, BASE_BYTES)
        for folder in folders
        for share, context_tokens, new_tokens in EACH
    ]


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("models", nargs="+", help="three, or with --each any number")
    parser.add_argument("--each", action="store_true", help="the same set-ups for each model")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of set-ups, from 0 on")
    args = parser.parse_args()
    folders = [model_folder(model) for model in args.models]
    if len(folders) != 3 and not args.each:
        parser.error("three models, of about 2, 4 and 8 GB; or --each")
    facts = print_host(folders[0])
    setups = set_ups(folders, each=args.each)
    chosen = [setups[index] for index in args.only] if args.only else setups
    with tempfile.TemporaryDirectory() as folder:
        rows, ratios, samples = measure(chosen, Path(folder), args.runs)
    headers = ["model", "--ram", "context", "disk", "decode tok/s", "ratio", "TTFT s", "ratio", "peak MiB", "ratio"]
    headers.append("of --ram")
    print("\nmeasured / predicted\n")
    print(table(headers, rows))
    for name in ("decode", "ttft", "peak"):
        errors = sorted(abs(ratio[name] - 1) for ratio in ratios)
        print(f"{name}: median error {median(errors):.1%}, worst {errors[-1]:.1%}")
    write_samples(args.json, {"host": facts, "runs": samples})
    return 0


def measure(
    setups: Sequence[Setup], folder: Path, runs: int
) -> tuple[list[list[str]], list[dict[str, float]], list[dict[str, Any]]]:
    """All set-ups, those of one disk together, after a measurement of that machine."""
    caches: dict[str | None, Path] = {}
    rows, ratios, samples = [], [], []
    for setup in sorted(setups, key=lambda setup: setup.disk or ""):
        if setup.disk not in caches:
            caches[setup.disk] = folder / f"cache-{setup.disk}"
            measure_machine(setup.limits, setup.folder, LLMRUN_CACHE=str(caches[setup.disk]))
        prompt = folder / "prompt.txt"
        write_prompt(setup, prompt)
        found = [run(setup, prompt, caches) for _ in range(runs)]
        cells, ratio = row(setup, found)
        note("  ".join(cells))
        rows.append(cells)
        ratios.append(ratio)
        samples.append({"setup": asdict(setup) | {"folder": setup.folder.name}, "runs": found})
    return rows, ratios, samples


if __name__ == "__main__":
    raise SystemExit(main())
