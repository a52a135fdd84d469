"""llama.cpp, transformers and Accelerate on the same bf16 weights in the same small machine, in turns with llmrun.

    python benchmarks/peers.py MODEL --gguf MODEL-bf16.gguf --llama-completion BIN --machine 6GiB --ram 5.5GiB \\
        -n 8 --runs 3 [--accelerate 2GiB] [--transformers]

llama.cpp maps its file and leaves residency to the page cache, whose memory counts in the machine. Decode tok/s =
(n - 1) / (t_last - t_first): for llama.cpp its own `eval time`, or, where it prints none, the arrival of the text. TTFT
is from the start of the process to the first token; for the tools in Python also without the imports, as "load +
prefill". The page cache is dropped before each run. Bytes are those that the kernel counts for the process. Needs root.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import (
    MB,
    Killed,
    add_llama_cpp,
    add_machine,
    argument_parser,
    model_folder,
    note,
    print_host,
    process_counters,
    ratios,
    run_tool_on,
    spread,
    table,
    write_samples,
)
from limited import Limits, SmallMachine

from llmrun.units import parse_bytes

PROMPT = "The capital of France is Paris."
CONTEXT_TOKENS = 512
HEADERS = ("", "decode tok/s", "TTFT s, imports not counted", "TTFT s, from start", "peak anonymous MB", "MB/token")
EVAL = re.compile(r"\beval time =\s*([\d.]+) ms /\s*(\d+) runs")


@dataclass(frozen=True)
class Run:
    """What one run of a tool measured."""

    decode_tokens_per_s: float
    ttft_s: float  # from the start of the process
    ttft_loaded_s: float  # without the imports
    peak_anonymous_bytes: int
    read_bytes_per_token: float


def run_python(folder: Path, limits: Limits, script: str, prompt: str, new_tokens: int, *options: str) -> Run:
    """llmrun, or transformers with Accelerate."""
    arguments = [str(folder), "-p", prompt, "--new", str(new_tokens), "--ignore-end", *options]
    finished, usage = run_tool_on(limits, folder, script, *arguments)
    report = finished.report
    answer = report.answers[0]
    return Run(
        answer.decode_tokens_per_s,
        answer.token_s[0] - finished.began_s,
        answer.token_s[0] - report.imported_s,
        usage.peak_anonymous_bytes,
        answer.read_bytes_per_token,
    )


def run_llama(args: Any, limits: Limits, prompt: str, new_tokens: int) -> Run:  # noqa: ANN401
    """llama.cpp, as `add_llama_cpp` has it, with the file mapped; it prints only what it generates."""
    command = [str(args.llama_completion), "-m", str(args.gguf), "-p", prompt, "-n", str(new_tokens)]
    command += [
        "-t",
        str(args.llama_threads),
        "--temp",
        "0",
        "-no-cnv",
        "--ignore-eos",
        "-c",
        str(CONTEXT_TOKENS),
        "-lm",
        "mmap",
    ]
    command += ["--no-warmup", "--no-display-prompt"]
    with tempfile.TemporaryFile() as errors, SmallMachine(limits, args.gguf) as machine:
        began_s = time.monotonic()
        process = machine.popen(command, stdout=subprocess.PIPE, stderr=errors)
        arrivals = watch(process)
        peak = machine.usage().peak_anonymous_bytes
        errors.seek(0)
        told = errors.read().decode(errors="replace")
    if process.returncode != 0 or len(arrivals) < 2:
        sys.exit(f"llama.cpp ended with {process.returncode}: {told[-2000:]}")
    (first_s, first_bytes), (last_s, last_bytes) = arrivals[0], arrivals[-1]
    own = EVAL.findall(told)
    tokens_per_s = 1000 * int(own[-1][1]) / float(own[-1][0]) if own else (new_tokens - 1) / (last_s - first_s)
    ttft_s = first_s - began_s
    return Run(tokens_per_s, ttft_s, ttft_s, peak, (last_bytes - first_bytes) / (new_tokens - 1))


def watch(process: subprocess.Popen[bytes]) -> list[tuple[float, int]]:
    """When text arrived, and the bytes that the process had read from storage by then."""
    assert process.stdout is not None
    arrivals = []
    while text := os.read(process.stdout.fileno(), 4096):
        now_s = time.monotonic()
        if text.strip():
            arrivals.append((now_s, process_counters(process.pid)["read_bytes"]))
    process.wait()
    return arrivals


def measure(folder: Path, args: Any) -> dict[str, list[Run]]:  # noqa: ANN401
    """Runs of every tool in turns."""
    limits = Limits(args.machine, args.disk)
    ours = ("--ram", str(args.ram), "--context", str(CONTEXT_TOKENS))

    def python(script: str, *options: str) -> Callable[[], Run]:
        return lambda: run_python(folder, limits, script, PROMPT, args.new, *options)

    tools: dict[str, Callable[[], Run]] = {
        "llmrun": python("run_llmrun.py", *ours),
        "llama.cpp": lambda: run_llama(args, limits, PROMPT, args.new),
    }
    if args.accelerate is not None:
        tools["Accelerate"] = python("run_transformers.py", "--offload", str(args.accelerate))
    if args.transformers:
        tools["transformers"] = python("run_transformers.py")
    runs: dict[str, list[Run]] = {name: [] for name in tools}
    for index in range(args.runs):
        for name, run in list(tools.items()):
            try:
                runs[name].append(run())
                note(f"run {index + 1}: {name} {runs[name][-1]}")
            except Killed as end:  # it would be again
                note(f"run {index + 1}: {name}: {end}")
                del tools[name]
                runs[name] = []
    return runs


def tool_row(name: str, runs: list[Run]) -> list[str]:
    """The figures of a tool."""
    if not runs:
        return [name, "killed for memory", "", "", "", ""]
    return [
        name,
        spread([run.decode_tokens_per_s for run in runs], ".3f"),
        spread([run.ttft_loaded_s for run in runs], ".1f"),
        spread([run.ttft_s for run in runs], ".1f"),
        spread([run.peak_anonymous_bytes / MB for run in runs], ".0f"),
        spread([run.read_bytes_per_token / MB for run in runs], ".0f"),
    ]


def ratio_row(name: str, ours: list[Run], theirs: list[Run]) -> list[str]:
    """llmrun over a peer, pair by pair."""

    def of(figure: str) -> str:
        return spread(ratios([getattr(run, figure) for run in ours], [getattr(run, figure) for run in theirs]))

    return [f"llmrun / {name}", of("decode_tokens_per_s"), of("ttft_loaded_s"), of("ttft_s"), "", ""]


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    add_machine(parser)
    add_llama_cpp(parser, required=True)
    parser.add_argument("--accelerate", type=parse_bytes, metavar="SIZE", help="run it too; weights it keeps in RAM")
    parser.add_argument("--transformers", action="store_true", help="run it too, all weights in RAM")
    parser.add_argument("-n", "--new", type=int, default=8, help="tokens of an answer")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    folder = model_folder(args.model).resolve()
    facts = print_host(folder)
    runs = measure(folder, args)
    ours = runs["llmrun"]
    rows = [tool_row(name, found) for name, found in runs.items()]
    rows += [ratio_row(name, ours, found) for name, found in runs.items() if found and name != "llmrun"]
    print(table(HEADERS, rows))
    write_samples(
        args.json, {"host": facts, "runs": {name: [asdict(run) for run in found] for name, found in runs.items()}}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
