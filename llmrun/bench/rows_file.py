"""Rows of an earlier benchmark, from the file that ``llmrun bench -o json`` or ``-o jsonl`` wrote.

Whoever wrote the file, everything in it is checked before it is a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrun.bench.record import derived
from llmrun.bench.row import SCHEMA_VERSION, Row
from llmrun.errors import UsageError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MOST_CHARACTERS = 64 << 20
MAX_NUMBER = 1 << 53  # what JSON says exactly
_HINT = "`llmrun bench -o json > FILE` writes such a file"


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of the file, at least one. JSON is told from JSON lines by its first letter.

    Raises:
        UsageError: ``file-unreadable``; ``bad-bench-file``, it has something else than rows of this schema version.
    """
    objects = list(_objects(_text(path), path))
    if not objects:
        raise _bad(path, "there are no rows in it")
    return tuple(_row(value, f"row {number}", path) for number, value in enumerate(objects, start=1))


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(MOST_CHARACTERS + 1)
    except OSError as error:
        raise UsageError("file-unreadable", f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise _bad(path, "it is no text") from None
    if len(text) > MOST_CHARACTERS:
        raise _bad(path, f"it has more than {MOST_CHARACTERS >> 20} million letters")
    return text


def _objects(text: str, path: Path) -> Iterator[object]:
    if text.lstrip().startswith("["):
        yield from _json(text, "", path)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _json(line, f"line {number}: ", path)


def _json(text: str, where: str, path: Path) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"{where}it is no JSON: {error}") from None


def _row(value: object, where: str, path: Path) -> Row:
    from pydantic import ValidationError

    if not isinstance(value, dict):
        raise _bad(path, f"{where} is no object")
    version = value.get("schema_version")
    if version is None:
        raise _bad(path, f"{where} has no schema_version; another program wrote it")
    if version != SCHEMA_VERSION:
        raise _bad(path, f"{where} has schema_version {version!r:.40}, where this llmrun reads {SCHEMA_VERSION}")
    own = {name: part for name, part in value.items() if name not in derived()}
    try:
        (row,) = _adapter().validate_json(json.dumps([own]))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _bad(path, f"{where}: {'.'.join(map(str, first['loc'][1:]))}: {first['msg']}") from None
    for fault in _faults(row):
        raise _bad(path, f"{where}: {fault}")
    return row


@cache
def _adapter() -> TypeAdapter[tuple[Row]]:
    """Converts nothing, takes no unknown field. A dataclass takes a config only from what it is within: a tuple."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(tuple[Row], config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))


def _faults(row: Row) -> Iterator[str]:
    """What types cannot say: a rate has to come out of it."""
    for name, value in asdict(row).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not (0 <= number <= MAX_NUMBER or name == "seed"):
                yield f"{name}: out of range"
    if not row.samples_ns or 0 in row.samples_ns:
        yield "samples_ns: a case takes time, at least once"
    if not row.case.n_tokens:
        yield "n_prompt and n_gen: both are 0"


def _bad(path: Path, reason: str) -> UsageError:
    return UsageError("bad-bench-file", f"{path} cannot be compared with: {reason}", hint=_HINT)
