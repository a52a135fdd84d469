"""A row as named values in a fixed order: llama-bench's fields, and ours among and after them. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields

from llmrun.bench.row import SCHEMA_VERSION, Row

Value = int | float | str | list[int] | list[float] | None

_DERIVED = {"avg_ns": "INTEGER", "stddev_ns": "INTEGER", "avg_ts": "REAL", "stddev_ts": "REAL"}
_SAMPLES = {"samples_ns": "TEXT", "samples_ts": "TEXT"}  # as JSON arrays, where there is no other way
_SQL_TYPES = {"int": "INTEGER", "float": "REAL", "str": "TEXT"}


def sql_types() -> Mapping[str, str]:
    """Each field and the type of its column, in the order of ``record``."""
    found = {"schema_version": "INTEGER"}
    for field in fields(Row):
        if field.name not in _SAMPLES:
            found[field.name] = _SQL_TYPES[str(field.type).removesuffix(" | None")]
        if field.name == "test_time":
            found |= _DERIVED
    return found | _SAMPLES


def record(row: Row) -> dict[str, Value]:
    """All fields of the row with the means and deviations, JSON's types only; nanoseconds are ints as llama-bench's."""
    values = {
        **asdict(row),
        "schema_version": SCHEMA_VERSION,
        "avg_ns": round(row.avg_ns),
        "stddev_ns": round(row.stddev_ns),
        "avg_ts": row.avg_ts,
        "stddev_ts": row.stddev_ts,
        "samples_ns": list(row.samples_ns),
        "samples_ts": list(row.samples_ts),
    }
    return {name: _plain(values[name]) for name in sql_types()}


def flat(row: Row) -> dict[str, int | float | str | None]:
    """The record with the samples as JSON text, for formats without lists."""
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in record(row).items()}


def derived() -> frozenset[str]:
    """Fields of a record that follow from others."""
    return frozenset({"schema_version", "samples_ts", *_DERIVED})


def _plain(value: Value) -> Value:
    """Without what some format cannot say: NUL, a byte of a file name that is no UTF-8, infinity."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "?")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
