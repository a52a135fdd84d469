"""Which model for which machine: what `llmrun plan` predicts for typical models on every preset.

    python benchmarks/choosing.py --json choosing.json

Each cell is one `llmrun plan MODEL --dry-run --hardware PRESET --json`, with its defaults: 4,096 tokens of context, a
prompt of 512 tokens, an answer of 256. The models are headers alone: real sizes (tests/shapes.py), whose weights are
holes in files. No model is run and nothing is measured; the presets are estimated from data sheets.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import REPOSITORY, argument_parser, gib, note, table, write_samples
from help_time import command

from llmrun import __version__
from llmrun.hardware.presets import preset_names

sys.path.append(str(REPOSITORY / "tests"))  # a folder of modules, as this one is: no package

from shapes import write_sparse

MODELS = ["SmolLM2-135M", "Llama-3.2-1B", "Llama-3.2-3B", "Llama-3.1-8B", "Llama-2-13B", "Qwen3-32B", "Llama-3.1-70B"]


@dataclass(frozen=True)
class Cell:
    """What is predicted for a model on a machine. ``error`` is the reference where there is no plan."""

    model: str
    preset: str
    weight_bytes: int = 0
    decode_tokens_per_s: float = 0.0
    ttft_s: float = 0.0
    later_ttft_s: float = 0.0
    disk_bytes_per_token: int = 0
    from_ram: bool = False
    drafts: bool = False
    bottleneck: str = ""
    error: str = ""

    @property
    def mark(self) -> str:
        """``D`` where a pass reads from disk, ``S`` where it gives several tokens; ``R`` where a GPU's machine keeps a
        part of the weights in RAM.
        """
        if self.disk_bytes_per_token:
            return " DS" if self.drafts else " D"
        return " R" if self.from_ram else ""

    def decode(self) -> str:
        """Tokens a second."""
        return self.error or f"{number(self.decode_tokens_per_s)}{self.mark}"

    def first_token(self) -> str:
        """Seconds to the first token, of the first request and of a later one."""
        return self.error or f"{number(self.ttft_s)} / {number(self.later_ttft_s)}"


def number(value: float) -> str:
    """Two digits that mean something; more are not known."""
    return f"{value:.0f}" if value >= 10 else f"{value:#.2g}".rstrip(".")


def plan(model: str, preset: str, folder: Path) -> Cell:
    """Ask the command."""
    args = [*command(), "plan", model, "--dry-run", "--hardware", preset, "--json"]
    found = subprocess.run(args, cwd=folder, capture_output=True, text=True, check=False)
    if found.returncode:
        return Cell(model, preset, error=found.stderr.partition("error: ")[2].partition("\n")[0])
    return cell(preset, json.loads(found.stdout))


def cell(preset: str, report: dict[str, Any]) -> Cell:
    """The figures of a `llmrun plan --json`."""
    predicted = report["prediction"]
    return Cell(
        model=report["model"]["name"],
        preset=preset,
        weight_bytes=report["model"]["weight_bytes"],
        decode_tokens_per_s=predicted["decode_tokens_per_s"],
        ttft_s=predicted["ttft_s"],
        later_ttft_s=predicted["warm_ttft_s"],
        disk_bytes_per_token=predicted["bytes_per_token"].get("disk", 0),
        from_ram=len(report["plan"]["memory"]) > 1 and "cpu" in predicted["bytes_per_token"],
        drafts=predicted["drafting"] is not None,
        bottleneck=predicted["bottleneck"],
    )


def main() -> int:
    """Plan and print."""
    args = argument_parser(__doc__).parse_args()
    presets = preset_names()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = []
        for model in MODELS:
            note(model)
            write_sparse(model, folder / model)
            cells.append([plan(model, preset, folder) for preset in presets])
    sizes = [gib(max(one.weight_bytes for one in row)) for row in cells]
    print(f"llmrun {__version__}; predicted, not measured\n")
    for what, told in (("decode, tok/s", Cell.decode), ("first token, s: at first / later", Cell.first_token)):
        rows = [[row[0].model, size, *map(told, row)] for row, size in zip(cells, sizes, strict=True)]
        print(table([what, "on disk", *presets], rows), end="\n\n")
    write_samples(args.json, {"version": __version__, "cells": [asdict(one) for row in cells for one in row]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
