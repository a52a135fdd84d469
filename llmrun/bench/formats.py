"""Rows as text: Markdown, CSV, JSON, JSON lines, SQL. Each row is written and flushed as soon as it is measured.

out = writer("json", sys.stdout)
out.begin()
for row in rows: out.row(row)
out.end()
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TextIO

from llmrun.bench.markdown import header, line
from llmrun.bench.record import flat, record, sql_types
from llmrun.bench.row import Row
from llmrun.errors import UsageError

TABLE = "llmrun_bench"


class Writer(ABC):
    """One format on one stream: ``begin``, each ``row``, ``end``; ``end`` makes what is there whole."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self) -> None:  # noqa: B027 - a format may need none
        """What comes before the rows."""

    @abstractmethod
    def row(self, row: Row) -> None:
        """One more row, flushed."""

    def end(self) -> None:  # noqa: B027
        """What comes after the rows."""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class MarkdownWriter(Writer):
    """A table with llama-bench's columns and some of ours, aligned as it grows."""

    def begin(self) -> None:
        """The names of the columns."""
        self._write(header())

    def row(self, row: Row) -> None:
        """One line."""
        self._write(line(row, self._stream.encoding))


class CsvWriter(Writer):
    """All fields; values quoted as llama-bench does, samples as JSON arrays, an empty value where there is none."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._csv = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")

    def begin(self) -> None:
        """The names of the fields."""
        self._write(",".join(sql_types()) + "\n")

    def row(self, row: Row) -> None:
        """One record."""
        self._csv.writerow(flat(row).values())
        self._stream.flush()


class JsonWriter(Writer):
    """An array of objects."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._before = "\n"

    def begin(self) -> None:
        """Open the array."""
        self._write("[")

    def row(self, row: Row) -> None:
        """One object, a field a line."""
        fields = ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in record(row).items())
        self._write(f"{self._before}  {{\n{fields}\n  }}")
        self._before = ",\n"

    def end(self) -> None:
        """Close the array."""
        self._write("\n]\n")


class JsonLinesWriter(Writer):
    """An object a line."""

    def row(self, row: Row) -> None:
        """One line."""
        self._write(json.dumps(record(row)) + "\n")


class SqlWriter(Writer):
    """A table and its rows, for ``sqlite3 FILE``; samples as JSON arrays."""

    def begin(self) -> None:
        """Make the table, if the database has none."""
        columns = ",\n".join(f"  {name} {kind}" for name, kind in sql_types().items())
        self._write(f"CREATE TABLE IF NOT EXISTS {TABLE} (\n{columns}\n);\n\n")

    def row(self, row: Row) -> None:
        """One statement."""
        values = ", ".join(_sql(value) for value in flat(row).values())
        self._write(f"INSERT INTO {TABLE} ({', '.join(sql_types())}) VALUES ({values});\n")


FORMATS: Mapping[str, type[Writer]] = {
    "md": MarkdownWriter,
    "csv": CsvWriter,
    "json": JsonWriter,
    "jsonl": JsonLinesWriter,
    "sql": SqlWriter,
}


def writer(kind: str, stream: TextIO) -> Writer:
    """The writer of a format onto a stream.

    Raises:
        UsageError: ``bad-option``, there is no such format.
    """
    if kind not in FORMATS:
        raise UsageError("bad-option", f"there is no output format {kind!r}", hint=f"one of {', '.join(FORMATS)}")
    return FORMATS[kind](stream)


def _sql(value: int | float | str | None) -> str:
    if value is None:
        return "NULL"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
