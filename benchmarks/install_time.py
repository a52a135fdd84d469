"""How long `pip install .` takes to build the kernels; and that it works where there is no compiler.

    python benchmarks/install_time.py --model smollm2:135m

The commit is unpacked and installed into a new folder, without its dependencies, which are there. Then llmrun answers
from that folder; `LLMRUN_CACHE` is as it was, so the model may be there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import REPOSITORY, argument_parser, note, print_host, table, write_samples

QUESTION = "What is the capital of France? Answer in one sentence."
NO_COMPILER = "/nonexistent/cc"


def install(folder: Path, compiler: str | None) -> float:
    """Seconds of it; what was installed lies in ``folder / "site"``."""
    source = folder / "source"
    source.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, capture_output=True, check=True)
    subprocess.run(["tar", "-x"], input=archive.stdout, cwd=source, check=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder / "site"), "."]
    environment = os.environ | ({"CC": compiler, "CXX": compiler} if compiler else {})
    began_s = time.monotonic()
    subprocess.run(command, cwd=source, env=environment, check=True)
    return time.monotonic() - began_s


def answer(folder: Path, model: str) -> str:
    """What the installed llmrun says."""
    command = [sys.executable, "-m", "llmrun", "chat", model, "-p", QUESTION, "--temperature", "0"]
    environment = os.environ | {"PYTHONPATH": str(folder / "site")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> int:
    """Both installations."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="smollm2:135m")
    args = parser.parse_args()
    facts = print_host(REPOSITORY)
    rows, samples = [], {}
    for name, compiler in (("as it is", None), ("no compiler", NO_COMPILER)):
        note(name)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            seconds = install(folder, compiler)
            built = sorted(file.name for file in (folder / "site" / "llmrun" / "kernels").glob("*.so"))
            said = answer(folder, args.model)
        rows.append([name, f"{seconds:.1f}", ", ".join(built) or "none", said])
        samples[name] = {"seconds": seconds, "built": built, "answer": said}
    print(table(["", "s", "kernels", "its answer"], rows))
    write_samples(args.json, {"host": facts, "installations": samples})
    return 0


if __name__ == "__main__":
    sys.exit(main())
