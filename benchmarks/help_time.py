"""How long `llmrun --help` takes, and what it imports.

python benchmarks/help_time.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from common import REPOSITORY, argument_parser, print_host, spread, table, write_samples

HEAVY = ("torch", "transformers", "numpy", "scipy", "huggingface_hub", "gguf", "rich", "prompt_toolkit")
LIST_MODULES = """
import contextlib, io, sys
from llmrun.cli.app import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["--help"])
print("\\n".join(sys.modules))
"""


def command() -> list[str]:
    """The command as it is installed beside this interpreter, else as a module."""
    installed = Path(sys.executable).with_name("llmrun")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "llmrun"]


def wall_s() -> float:
    """Seconds of one `llmrun --help`."""
    began_s = time.monotonic()
    subprocess.run([*command(), "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began_s


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    facts = print_host(REPOSITORY)
    wall_s()  # its files are in the page cache from here on
    seconds = [wall_s() for _ in range(args.runs)]
    listed = subprocess.run([sys.executable, "-c", LIST_MODULES], capture_output=True, text=True, check=True)
    modules = listed.stdout.split()
    heavy = [name for name in HEAVY if name in modules]
    rows = [
        ["`llmrun --help`, s", spread(seconds, ".3f")],
        ["modules imported", str(len(modules))],
        [f"of {', '.join(HEAVY)}", ", ".join(heavy) or "none"],
    ]
    print(table(["page cache warm", f"median of {args.runs} (lowest to highest)"], rows))
    write_samples(args.json, {"host": facts, "seconds": seconds, "modules": modules})
    return 0


if __name__ == "__main__":
    sys.exit(main())
