"""What the dashboard costs: the decode rate with and without it, in turns, and the CPU seconds of its drawing.

    python benchmarks/dashboard_cost.py smollm2:135m --ram 700MiB --tokens 256 --runs 5 --json dashboard_cost.json

Each run is a process on a pseudo-terminal of 120 x 40. The loss is the median of the losses of neighbouring runs; the
share of a core is the CPU time of the thread that draws over the time in which it did.
"""

from __future__ import annotations

import json
import os
import pty
import statistics
import subprocess
import sys
import termios
import threading
from typing import Any

from common import HERE, argument_parser, model_folder, print_host, table, write_samples

ROWS_COLUMNS = (40, 120)


def run(ui: str, arguments: list[str]) -> dict[str, Any]:
    """One process; its standard error is a terminal that somebody reads."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, ROWS_COLUMNS)
    command = [sys.executable, str(HERE / "dashboard_run.py"), *arguments, "--ui", ui]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, env=os.environ | {"TERM": "xterm"}
    )
    os.close(slave)
    drawn = bytearray()
    reader = threading.Thread(target=_drain, args=(master, drawn))
    reader.start()
    output, _ = process.communicate()
    reader.join()
    os.close(master)
    if process.returncode:
        raise SystemExit(drawn.decode(errors="replace"))
    return json.loads(output) | {"ui": ui, "terminal_bytes": len(drawn)}


def _drain(master: int, drawn: bytearray) -> None:
    while True:
        try:
            drawn += os.read(master, 65536)
        except OSError:  # the last writer is gone
            return


def main() -> None:
    """See above."""
    parser = argument_parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("--ram")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    host = print_host(model_folder(args.model))
    arguments = [args.model, "--tokens", str(args.tokens), *(["--ram", args.ram] if args.ram else [])]
    pairs = []
    for index in range(args.runs):
        order = ("none", "dashboard") if index % 2 == 0 else ("dashboard", "none")
        pairs.append({ui: run(ui, arguments) for ui in order})
    rows = [_row(pair) for pair in pairs]
    print(table(["none, tok/s", "dashboard, tok/s", "loss", "of a core", "bytes/s drawn"], rows))
    print(
        f"median loss {statistics.median(map(_loss, pairs)):.2%}, {statistics.median(map(_core, pairs)):.2%} of a core"
    )
    write_samples(args.json, {"host": host, "arguments": arguments, "pairs": pairs})


def _row(pair: dict[str, dict[str, Any]]) -> list[str]:
    plain, drawn = pair["none"], pair["dashboard"]
    rates = [f"{plain['tokens_per_s']:.3f}", f"{drawn['tokens_per_s']:.3f}", f"{_loss(pair):.2%}"]
    return [*rates, f"{_core(pair):.2%}", f"{drawn['terminal_bytes'] / drawn['seconds']:,.0f}"]


def _loss(pair: dict[str, dict[str, Any]]) -> float:
    return 1 - pair["dashboard"]["tokens_per_s"] / pair["none"]["tokens_per_s"]


def _core(pair: dict[str, dict[str, Any]]) -> float:
    return pair["dashboard"]["drawing_s"] / pair["dashboard"]["seconds"]


if __name__ == "__main__":
    main()
