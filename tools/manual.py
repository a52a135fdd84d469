"""Writes the manual from the commands themselves: man/, completions/ and docs/cli.md.

python tools/manual.py           write all of it
python tools/manual.py --check   only say what is stale; exit code 1 if anything is
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli_page import cli_page
from command_tree import PROGRAM, read_commands
from completion_scripts import scripts
from man_page import man_pages
from notes import read_notes

REPOSITORY = Path(__file__).parents[1]


def manual() -> Mapping[str, str]:
    """Path below the repository -> what it has to hold."""
    from llmrun.cli.app import COMPLETION_VARIABLE, app

    commands, notes = read_commands(app), read_notes()
    return {
        **{f"man/{name}": text for name, text in man_pages(commands, notes).items()},
        **{f"completions/{name}": text for name, text in scripts(PROGRAM, COMPLETION_VARIABLE).items()},
        "docs/cli.md": cli_page(commands, notes),
    }


def stale(root: Path, wanted: Mapping[str, str]) -> list[str]:
    """The files that differ, that are missing, or that are of a command that is gone."""
    differ = [name for name, text in wanted.items() if _read(root / name) != text]
    return differ + [name for name in _present(root) if name not in wanted]


def write(root: Path, wanted: Mapping[str, str]) -> list[str]:
    """Make the files what they have to be; the names of those that were not."""
    changed = stale(root, wanted)
    for name in changed:
        path = root / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name], encoding="utf-8")
        else:
            path.unlink()
    return changed


def main(args: Sequence[str]) -> int:
    """Write or check."""
    if args not in ([], ["--check"]):
        sys.stderr.write(__doc__ or "")
        return 2
    if not args:
        sys.stdout.writelines(f"{name}\n" for name in write(REPOSITORY, manual()))
        return 0
    found = stale(REPOSITORY, manual())
    sys.stderr.writelines(f"stale: {name}\n" for name in found)
    if found:
        sys.stderr.write("`python tools/manual.py` renews them\n")
    return 1 if found else 0


def _present(root: Path) -> list[str]:
    return [f"{folder}/{path.name}" for folder in ("man", "completions") for path in sorted((root / folder).glob("*"))]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
