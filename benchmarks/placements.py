"""Does the placement matter? Decode of the same model within the same memory by two planners, in turns.

    python benchmarks/placements.py LLAMA7B --ram 8GiB --planners aco greedy --runs 5

Each run is a process of its own (`llmrun chat --planner NAME --json`) on the small machine with a cold page cache; the
host is measured once before. Decode tok/s is first to last token, as llmrun reports it; beside it what it predicted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import (
    argument_parser,
    model_folder,
    note,
    print_host,
    ratios,
    spread,
    table,
    wait_for,
    write_samples,
)
from limited import Limits, SmallMachine

from llmrun.units import GIB, parse_bytes

PROMPT = "Tell me a long story about a lighthouse keeper and the sea."


def run(folder: Path, planner: str, args: Any, environment: dict[str, str]) -> dict[str, Any]:  # noqa: ANN401
    """The JSON of one run."""
    limits = Limits(args.ram + GIB, args.disk)
    command = [sys.executable, "-m", "llmrun", "chat", str(folder), "-p", PROMPT, "--json", "--temperature", "0"]
    command += ["--ram", str(args.ram), "--context", str(args.context), "--max-tokens", str(args.new)]
    with SmallMachine(limits, folder) as machine:
        process = machine.popen([*command, "--planner", planner], stdout=subprocess.PIPE, env=environment)
        report: dict[str, Any] = json.loads(wait_for(process, 0.0).output)
    note(f"{planner} {report['decode_tokens_per_s']:.4f} tok/s, predicted {predicted(report):.4f}")
    return report


def predicted(report: dict[str, Any]) -> float:
    """The tok/s that the plan said."""
    return float(report["predicted"]["decode_tokens_per_s"])


def placement(report: dict[str, Any]) -> str:
    """One letter a layer: R in RAM, D from disk."""
    placed = report["plan"]["placements"]
    return "".join("D" if p["home"] == "disk" else "R" for p in placed if p["unit"].startswith("layer"))


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("--ram", type=parse_bytes, required=True)
    parser.add_argument("--disk", type=parse_bytes, help="bytes read in a second")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--planners", nargs=2, default=["aco", "greedy"])
    args = parser.parse_args()
    folder = model_folder(args.model)
    facts = print_host(folder)
    runs: dict[str, list[dict[str, Any]]] = {planner: [] for planner in args.planners}
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"LLMRUN_CACHE": cache}
        command = [sys.executable, "-m", "llmrun", "inspect", "--measure", "--path", str(folder)]
        with SmallMachine(Limits(args.ram + GIB, args.disk), folder, cold=False) as machine:
            wait_for(machine.popen(command, stdout=subprocess.PIPE, env=environment), 0.0)
        for turn in range(args.runs):
            for planner in args.planners[:: 1 if turn % 2 else -1]:  # each goes first every other time
                runs[planner].append(run(folder, planner, args, environment))
    speeds = {planner: [run["decode_tokens_per_s"] for run in found] for planner, found in runs.items()}
    foretold = {planner: [predicted(run) for run in found] for planner, found in runs.items()}
    first, second = args.planners
    rows = [[f"{planner}, tok/s", spread(speeds[planner], ".3f")] for planner in args.planners]
    rows += [[f"{planner}, predicted", spread(foretold[planner], ".3f")] for planner in args.planners]
    rows.append([f"{first} / {second}", spread(ratios(speeds[first], speeds[second]), ".3f")])
    rows.append(["predicted ratio", spread(ratios(foretold[first], foretold[second]), ".3f")])
    rows += [[f"{planner}, layers", placement(runs[planner][0])] for planner in args.planners]
    print(table([f"{args.runs} pairs", "median (lowest to highest)"], rows))
    write_samples(args.json, {"host": facts, "runs": runs})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
