"""The settings file: where it is, and what is written in it at which line.

TOML, whose keys are the options of the commands without their dashes. A key at the top is for every command that has
the option; one in a table such as ``[chat]`` is for that command, and wins. What the keys mean is not known here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmrun.errors import UsageError

FILE_VARIABLE = "LLMRUN_CONFIG"

_TABLE = re.compile(r"\s*\[\s*([\w-]+)\s*\]")
_KEY = re.compile(r"\s*([\w-]+)\s*=")


@dataclass(frozen=True)
class Entry:
    """One key of the file: its table (empty at the top), its name and value as written, and its line if that is known.

    The value of a table is a ``dict``.
    """

    path: Path
    table: str
    key: str
    value: object
    line: int | None

    @property
    def place(self) -> str:
        """Where it stands: ``/home/me/.config/llmrun/config.toml, line 3``."""
        return f"{self.path}, line {self.line}" if self.line else str(self.path)


def settings_path(env: Mapping[str, str] = os.environ) -> Path | None:
    """Where the file is looked for: LLMRUN_CONFIG (empty: nowhere), else ``config.toml`` in the user's own folder."""
    if (named := env.get(FILE_VARIABLE)) is not None:
        return Path(named).expanduser().absolute() if named else None
    from platformdirs import user_config_path

    return user_config_path("llmrun") / "config.toml"


def read_entries(path: Path | None) -> list[Entry]:
    """The keys of the file, those at the top and those in tables; none where there is no file.

    Raises:
        UsageError: ``bad-settings-file``, it cannot be read or is not TOML; line and column are named.
    """
    text = _read(path) if path else None
    if path is None or text is None:
        return []
    import tomllib  # only who has a file waits for it

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad_file(path, f"is not TOML: {error}") from None
    return list(_entries(path, values, _lines(text)))


def _read(path: Path) -> str | None:
    """The text of the file, or ``None`` where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _bad_file(path, f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise _bad_file(path, f"is not UTF-8 text (byte {error.start:,})") from None


def _entries(path: Path, values: Mapping[str, object], lines: Mapping[tuple[str, str], int]) -> Iterator[Entry]:
    for key, value in values.items():
        yield Entry(path, "", key, value, lines.get(("", key)) or lines.get((key, "")))
        if isinstance(value, dict):
            yield from (Entry(path, key, inner, found, lines.get((key, inner))) for inner, found in value.items())


def _lines(text: str) -> dict[tuple[str, str], int]:
    """(table, key) -> line, from 1, of all that stands on a line of its own, which ``tomllib`` does not tell."""
    table, lines = "", {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = header[1]
            lines[table, ""] = number
        elif key := _KEY.match(line):
            lines.setdefault((table, key[1]), number)
    return lines


def _bad_file(path: Path, what: str) -> UsageError:
    return UsageError(
        "bad-settings-file",
        f"the settings file {path} {what}",
        hint=f"mend it, or `{FILE_VARIABLE}= llmrun ...` runs without; `llmrun config --example` shows one",
    )
