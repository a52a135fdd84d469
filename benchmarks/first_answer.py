"""From nothing to the default model's answer: the README's first command, word for word, in a fresh copy of HEAD.

    python benchmarks/first_answer.py

The virtual environment and the caches of models are new; pip has its own cache unless --no-pip-cache is given.
Then the answer alone is asked for again, from the installed copy.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import REPOSITORY, argument_parser, print_host, table, write_samples

BLOCK = re.compile(r"^<!-- ci: run -->\n```sh\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
CLEARED = ("LLMRUN_MODEL", "LLMRUN_RAM", "LLMRUN_VRAM", "HF_HUB_CACHE", "VIRTUAL_ENV")


def first_command(readme: str) -> str:
    """The command that the README marks as the first."""
    found = BLOCK.search(readme)
    if not found:
        sys.exit("README.md has no command marked `ci: run`")
    return found[1]


def environment(scratch: Path, *, pip_cache: bool) -> dict[str, str]:
    """This environment with empty caches of models."""
    kept = {name: value for name, value in os.environ.items() if name not in CLEARED}
    caches = {"LLMRUN_CACHE": "llmrun", "HF_HOME": "huggingface", "XDG_STATE_HOME": "state"}
    no_cache = {} if pip_cache else {"PIP_NO_CACHE_DIR": "1"}
    return {**kept, **{name: str(scratch / folder) for name, folder in caches.items()}, **no_cache}


def run(command: str, folder: Path, env: dict[str, str]) -> tuple[float, str]:
    """Seconds of a command, and the last line that it prints."""
    began_s = time.monotonic()
    shell = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(shell, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"the command ended with {done.returncode}")
    return time.monotonic() - began_s, done.stdout.strip().splitlines()[-1]


def main() -> int:
    """Run it and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--no-pip-cache", action="store_true", help="have pip download everything")
    args = parser.parse_args()
    facts = print_host(REPOSITORY)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        copy = scratch / "copy"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(copy)], check=True)
        command = first_command((copy / "README.md").read_text())
        env = environment(scratch, pip_cache=not args.no_pip_cache)
        first_s, answer = run(command, copy, env)
        again_s, same = run(command.rpartition("&&")[2], copy, env)
    rows = [
        ["the README's first command, s", f"{first_s:.0f}"],
        ["its answer", answer],
        ["names Paris", "yes" if "Paris" in answer else "NO"],
        ["the answer again, s", f"{again_s:.1f}"],
        ["the same answer", "yes" if same == answer else "NO"],
    ]
    print(table([f"pip's cache {'off' if args.no_pip_cache else 'as it was'}", "measured"], rows))
    write_samples(args.json, {"host": facts, "first_s": first_s, "answer": answer, "again_s": again_s})
    return 0 if "Paris" in answer else 1


if __name__ == "__main__":
    sys.exit(main())
