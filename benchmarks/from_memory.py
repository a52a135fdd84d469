"""Prompt and decode from RAM beside llama.cpp: `llmrun bench` and `llama-bench` on the same weights, in turns.

    python benchmarks/from_memory.py MODEL=MODEL-bf16.gguf Q8_0.gguf Q4_0.gguf --llama-bench BIN \\
        -p 512 -n 32 --runs 2 --quality lossless balanced

Each pair is what llmrun runs and, after `=`, the GGUF file for llama.cpp where that is another one. Both tools use as
many threads as there are cores, warm up, and measure the prompt and the new tokens apart, each `-r` times. The share of
the bandwidth is decode tok/s x bytes that a token reads / bytes a second that come from RAM, which llmrun measures
first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from common import argument_parser, model_folder, note, print_host, spread, table, write_samples

Rates = dict[str, float]  # tokens a second by the name of the test: pp512, tg32; "mbu" of llmrun


def run_llmrun(model: str, quality: str, sizes: Sequence[str]) -> Rates:
    """One run of `llmrun bench`."""
    command = [sys.executable, "-m", "llmrun", "bench", model, "--quality", quality, *sizes, "-o", "json"]
    rows = json.loads(_output([*command, "--ui", "none"]))
    return {_test(row): row["avg_ts"] for row in rows} | {"mbu": next(row["mbu"] for row in rows if row["n_gen"])}


def run_llama(binary: Path, gguf: Path, sizes: Sequence[str]) -> Rates:
    """One run of `llama-bench`."""
    threads = str(os.cpu_count())
    rows = json.loads(_output([str(binary), "-m", str(gguf), *sizes, "-t", threads, "-o", "json"]))
    return {_test(row): row["avg_ts"] for row in rows}


def _test(row: dict[str, Any]) -> str:
    return f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"


def _output(command: Sequence[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{' '.join(command)}: {finished.stderr[-2000:]}")
    return finished.stdout


def main() -> None:
    """Run the tools in turns and print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("pairs", nargs="+", metavar="MODEL[=GGUF]")
    parser.add_argument("--llama-bench", type=Path, required=True)
    parser.add_argument("-p", dest="prompt", default="512")
    parser.add_argument("-n", dest="new", default="32")
    parser.add_argument("-r", dest="repeat", default="2")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--quality", nargs="+", default=["lossless"])
    options = parser.parse_args()
    sizes = ["-p", options.prompt, "-n", options.new, "-r", options.repeat]
    tests = [f"pp{options.prompt}", f"tg{options.new}"]
    folder = model_folder(options.pairs[0].partition("=")[0])
    print_host(folder)
    _output([sys.executable, "-m", "llmrun", "inspect", "--refresh", "--path", str(folder)])
    samples: dict[str, list[Rates]] = {}
    cells = []
    for pair in options.pairs:
        model, _, gguf = pair.partition("=")
        runs: dict[str, list[Rates]] = {quality: [] for quality in (*options.quality, "llama.cpp")}
        for _ in range(options.runs):
            for quality in options.quality:
                runs[quality].append(run_llmrun(model, quality, sizes))
                note(f"{model} {quality} {runs[quality][-1]}")
            runs["llama.cpp"].append(run_llama(options.llama_bench, Path(gguf or model), sizes))
            note(f"{model} llama.cpp {runs['llama.cpp'][-1]}")
        samples |= {f"{model} {tool}": found for tool, found in runs.items()}
        cells += [_cells(Path(model).name, tool, runs, tests) for tool in runs]
    heads = [cell for test in tests for cell in (f"{test} tok/s", "ratio")]
    print(table(["model", "tool", *heads, "share of the bandwidth"], cells))
    write_samples(options.json, samples)


def _cells(model: str, tool: str, runs: dict[str, list[Rates]], tests: Sequence[str]) -> list[str]:
    cells = [model, tool if tool == "llama.cpp" else f"llmrun, {tool}"]
    for test in tests:
        rates = [run[test] for run in runs[tool]]
        theirs = median(run[test] for run in runs["llama.cpp"])
        cells += [spread(rates), f"{median(rates) / theirs:.2f}"]
    shares = [run["mbu"] for run in runs[tool] if "mbu" in run]
    return [*cells, f"{median(shares):.2f}" if shares else ""]


if __name__ == "__main__":
    main()
