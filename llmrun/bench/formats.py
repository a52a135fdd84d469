"""Rows as text: Markdown, CSV, JSON, JSON lines, SQL. Each row is written and flushed as soon as it is measured.

out = writer("json", sys.stdout)
out.begin()
for row in rows: out.row(row)
out.end()
"""

from __future__ import annotations

import csv
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TextIO

from llmrun.bench.markdown import ALL, caption, fitting, header, line
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
    """A table with llama-bench's columns and some of ours, aligned as it grows; what fits, in a narrow terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._columns = _terminal_columns(stream)
        self._names = fitting(self._columns)
        self._caption = ""

    def begin(self) -> None:
        """The names of the columns, where there is no caption to come before them."""
        if self._names == ALL:
            self._write(header())

    def row(self, row: Row) -> None:
        """One line, in a narrow terminal below its caption."""
        text = line(row, self._stream.encoding, self._names)
        if self._columns and self._names != ALL:
            text = self._head(row, self._columns) + text
        self._write(text)

    def _head(self, row: Row, columns: int) -> str:
        """Caption and names where they are not above already."""
        before, self._caption = self._caption, caption(row, columns)
        if self._caption == before:
            return ""
        return ("\n" if before else "") + f"{self._caption}\n{header(self._names)}"


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


def _terminal_columns(stream: TextIO) -> int | None:
    """``None`` where the stream is no terminal, or one that does not say how wide it is."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None
