"""What the benchmarks share: the host in words, medians, tables, raw samples, and the runs of other processes.

A figure is the median of runs that were made in turns with those it is compared with, and a ratio is the median of the
ratios of such pairs, never the ratio of two medians: the disk of a shared host changes by the minute.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limited import Limits, SmallMachine, Usage

from llmrun.units import GIB, format_bytes, parse_bytes

if TYPE_CHECKING:
    from llmrun.kernels.linear import Kernels

HERE = Path(__file__).resolve().parent
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
REPOSITORY = HERE.parent
MB = 1_000_000  # disks are measured in powers of ten


@dataclass(frozen=True)
class Answer:
    """One answer of a tool; times are ``time.monotonic()``, one for each token, and so are the bytes."""

    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    token_s: list[float]
    read_bytes: list[int]  # what the process had caused to be read from storage
    streamed_bytes_per_token: float | None = None  # as llmrun itself counts them, between first and last token
    stall_share: float | None = None  # of the same time
    top_logits: list[list[tuple[int, float]]] = field(default_factory=list)  # for each token the likeliest five

    @property
    def decode_tokens_per_s(self) -> float:
        """1 / TPOT; TPOT = (t_last - t_first) / (n - 1)."""
        return (len(self.token_s) - 1) / (self.token_s[-1] - self.token_s[0])

    @property
    def read_bytes_per_token(self) -> float:
        """Bytes read from storage between the first and the last token, for each token after the first."""
        return (self.read_bytes[-1] - self.read_bytes[0]) / (len(self.read_bytes) - 1)


@dataclass(frozen=True)
class Report:
    """What a process that ran a model tells of itself when it ends."""

    imported_s: float  # when the last module was imported that is needed to begin
    answers: list[Answer]
    peak_rss_bytes: int  # VmHWM: pages of files included
    written_bytes: int  # what the process caused to be written to storage
    planned_bytes: dict[str, int] = field(default_factory=dict)  # llmrun's account of memory, line by line
    predicted_peak_bytes: int = 0  # what llmrun predicts of peak_rss_bytes for the longest of these answers
    engine_imported_s: float | None = None  # when llmrun's engine was imported, but not yet the family's code

    @classmethod
    def parse(cls, text: str) -> Report:
        """A report as ``print_report`` wrote it."""
        value = json.loads(text)
        known = {f.name for f in fields(cls)}
        return cls(
            **{k: v for k, v in value.items() if k in known and k != "answers"},
            answers=[Answer(**answer) for answer in value["answers"]],
        )


def print_report(report: Report) -> None:
    """Hand a report to the process that started this one: the last line of standard output."""
    print(json.dumps(asdict(report)), flush=True)


@dataclass(frozen=True)
class Finished:
    """A process that has ended; ``began_s`` is when it was started."""

    began_s: float
    status: int
    output: str

    @property
    def report(self) -> Report:
        """The report of a tool that went well."""
        return Report.parse(self.output.strip().splitlines()[-1])


class Killed(SystemExit):
    """A tool that took more memory than its machine has."""


def wait_for(process: subprocess.Popen[bytes], began_s: float) -> Finished:
    """Collect the output of a process; one that failed ends the benchmark, unless it is caught as ``Killed``."""
    output, errors = process.communicate()
    if process.returncode in KILLED:
        raise Killed(f"{process.args!r} was killed")
    if process.returncode != 0:
        sys.stderr.write((errors or b"").decode(errors="replace")[-4000:])
        sys.exit(f"{process.args!r} ended with {process.returncode}")
    return Finished(began_s, process.returncode, output.decode())


def run_tool(script: str, *args: str) -> Finished:
    """Run another script of this folder, on the whole machine."""
    began_s = time.monotonic()
    return wait_for(subprocess.Popen(tool(script, *args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE), began_s)


def run_tool_on(limits: Limits, path: Path, script: str, *args: str) -> tuple[Finished, Usage]:
    """Run another script of this folder on a small machine with a cold page cache; ``path`` is on its disk."""
    with SmallMachine(limits, path) as machine:
        began_s = time.monotonic()
        finished = wait_for(machine.popen(tool(script, *args), stdout=subprocess.PIPE), began_s)
        return finished, machine.usage()


def measure_machine(limits: Limits, path: Path, **environment: str) -> None:
    """Have llmrun measure the small machine, and the disk of ``path``, before anything is timed on it.

    The page cache stays warm: where the first run measures, reading torch takes the time that measuring has.
    """
    with SmallMachine(limits, path, cold=False) as machine:
        command = [sys.executable, "-m", "llmrun", "inspect", "--refresh", "--path", str(path)]
        note(wait_for(machine.popen(command, stdout=subprocess.PIPE, env=os.environ | environment), 0.0).output)


def tool(script: str, *args: str) -> list[str]:
    """The command that runs another script of this folder."""
    return [sys.executable, str(HERE / script), *args]


def model_folder(model: str) -> Path:
    """The checkpoint of what a user calls a model: a folder, an alias, a hub id; fetched if it is not here."""
    from llmrun.hub import resolve

    return resolve(model, notify=lambda note: print(note, file=sys.stderr)).folder


def checkpoint_files(folder: Path) -> list[Path]:
    """The files that hold the weights; of an imported GGUF file, itself."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.gguf"))


def process_counters(pid: int | str = "self") -> dict[str, int]:
    """``read_bytes``, ``write_bytes`` and more of a process, from the kernel: what went to or came from storage."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Options of a benchmark that runs on a small machine."""
    parser.add_argument("model", help="folder, alias or hub id")
    parser.add_argument("--ram", type=parse_bytes, required=True, metavar="SIZE", help="what llmrun is allowed")
    parser.add_argument("--machine", type=parse_bytes, metavar="SIZE", help="RAM of the machine (default: all)")
    parser.add_argument("--disk", type=parse_bytes, metavar="SIZE", help="bytes/s that its disk gives (default: all)")


def add_llama_cpp(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Options of a benchmark that runs llama.cpp beside llmrun."""
    parser.add_argument("--gguf", type=Path, required=required, help="the same weights, BF16")
    parser.add_argument("--llama-completion", type=Path, required=required, metavar="BIN")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--llama-threads", type=int, default=cores, help="of llama.cpp")


def own_kernels(threads: int) -> Kernels:
    """The kernels, with as many threads as torch then has."""
    import torch

    from llmrun.kernels.library import find_library
    from llmrun.kernels.linear import Kernels

    torch.set_num_threads(threads)
    return Kernels(find_library(), threads)


def add_threads(parser: argparse.ArgumentParser, runs: int) -> None:
    """Options of a benchmark of kernels."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=runs)


def host(path: Path) -> dict[str, str]:
    """The machine and the versions that a figure belongs to; ``path`` is where the weights lie."""
    from llmrun.hardware import probe

    profile = probe(path)
    disk = profile.disk
    packages = ("llmrun", "torch", "transformers", "safetensors", "accelerate")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": _commit(),
        "CPU": f"{profile.cpu.name}, {profile.cpu.logical_cores} logical cores",
        "RAM": format_bytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "disk": f"{disk.device}, {disk.file_system}" if disk else "unknown",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        **{name: found for name in packages if (found := _version(name))},
        "load average": f"{os.getloadavg()[0]:.2f}",
    }


def print_host(path: Path) -> dict[str, str]:
    """Print the host in one line, and return it for the raw samples."""
    facts = host(path)
    print("; ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    return facts


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def note(text: str) -> None:
    """Say on standard error how far a benchmark is."""
    print(text, file=sys.stderr, flush=True)


def write_samples(file: Path | None, samples: Mapping[str, Any]) -> None:
    """Write what was measured, unrounded; in one step, so that what was there before is lost only to what is whole."""
    if file:
        partial = file.with_name(f".{file.name}.partial")
        partial.write_text(json.dumps({"command": sys.argv, **samples}, indent=1) + "\n")
        partial.replace(file)


def ratios(values: Sequence[float], references: Sequence[float]) -> list[float]:
    """The ratio of each pair."""
    return [value / reference for value, reference in zip(values, references, strict=True)]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, and between which values it lies: ``0.93 (0.91 to 0.95)``."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def gib(nbytes: float) -> str:
    """Bytes in GiB with two digits."""
    return f"{nbytes / GIB:.2f} GiB"


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
