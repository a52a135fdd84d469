"""What the manual says that the commands do not know of themselves.

``manual.toml``, the exit codes of ``llmrun/errors.py``, and the variables of ``docs/settings.md``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmrun import __version__, errors

PATH = Path(__file__).with_name("manual.toml")
SETTINGS = Path(__file__).parents[1] / "docs" / "settings.md"


@dataclass(frozen=True)
class Example:
    """A command line and what it is for."""

    run: str
    what: str


@dataclass(frozen=True)
class Notes:
    """The tables of ``manual.toml``, two of them by the last word of a command's name."""

    date: str
    exit_status: Mapping[str, str]
    exit_status_of: Mapping[str, Mapping[str, str]]
    environment: Mapping[str, str]  # by the names in backticks
    files: Mapping[str, str]
    examples: Mapping[str, tuple[Example, ...]]

    def examples_of(self, command: str) -> tuple[Example, ...]:
        """The examples of ``llmrun chat``."""
        return self.examples.get(command.split()[-1], ())

    def codes_of(self, command: str) -> Mapping[str, str]:
        """Exit code -> meaning."""
        return {**self.exit_status, **self.exit_status_of.get(command.split()[-1], {})}


def read_notes(path: Path = PATH, version: str = __version__) -> Notes:
    """The notes for a version.

    Raises:
        KeyError: its date is not in the file.
    """
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    codes = {**dict(_error_codes(errors.LlmrunError)), **table["exit_status"]}
    return Notes(
        date=table["dates"][version],
        exit_status=dict(sorted(codes.items(), key=lambda pair: int(pair[0]))),
        exit_status_of=table["exit_status_of"],
        environment=dict(read_variables(SETTINGS.read_text(encoding="utf-8"))),
        files=table["files"],
        examples={name: tuple(Example(**one) for one in found) for name, found in table["examples"].items()},
    )


def read_variables(page: str) -> Iterator[tuple[str, str]]:
    """What the page's tables of variables say: the name as it stands there, and meaning and default as sentences."""
    for row in re.findall(r"^\| (`[A-Z_]+`.*) \|$", page, re.MULTILINE):
        name, *default, meaning = row.split(" | ")
        without = f" Default: {default[0]}." if default else ""
        yield name, f"{meaning[0].upper()}{meaning[1:]}.{without}"


def _error_codes(kind: type[errors.LlmrunError]) -> Iterator[tuple[str, str]]:
    """Each exit code and the first line of its class; subclasses that share a code do not speak for it."""
    yield str(kind.exit_code), (kind.__doc__ or "").splitlines()[0]
    for below in kind.__subclasses__():
        if below.exit_code != kind.exit_code:
            yield from _error_codes(below)
