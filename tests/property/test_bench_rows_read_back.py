"""Every format of a benchmark read back gives the rows, whatever the names in it; counts as llama-bench writes them."""

import csv
import dataclasses
import io
import json
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_rows import PLAIN, made_row, text_of

from llmrun.bench.counts import parse_counts
from llmrun.bench.formats import FORMATS, TABLE
from llmrun.bench.markdown import header
from llmrun.bench.record import record, sql_types
from llmrun.bench.row import Row
from llmrun.bench.rows_file import read_rows

MOST = 1 << 53
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | st.sampled_from(
    [
        "it's",
        "''; DROP TABLE llmrun_bench; --",
        'a "b", c',
        "line\nline\r\nline",
        "|",
        "模型 ± \N{PILE OF POO}",
        " ",
        "\u2028",
        "\\",
    ]
)
KINDS = {
    "int": st.integers(0, MOST),
    "float": st.floats(0, MOST, allow_subnormal=False),
    "str": names,
    "tuple[int, ...]": st.lists(st.integers(1, 1 << 50), min_size=1, max_size=4).map(tuple),
}
FIELDS = {
    field.name: KINDS[field.type.removesuffix(" | None")] | (st.none() if "None" in field.type else st.nothing())
    for field in dataclasses.fields(Row)
} | {"n_gen": st.integers(1, MOST), "sweep": st.none() | names.filter(bool), "seed": st.integers(-MOST, MOST)}
rows_of = st.lists(st.builds(Row, **FIELDS), max_size=3)
NAMED = [made_row(model_type='it\'s\n"one", 模型|'), made_row(vram_peak_bytes=5, sweep="2GiB", n_prompt=512)]


def from_csv(text):
    """Values by the types that the table of SQL says."""
    kinds = {"INTEGER": int, "REAL": float, "TEXT": str}
    lines = csv.DictReader(io.StringIO(text, newline=""))
    return [
        {
            name: kinds[sql_types()[name]](value) if value or name not in NULLABLE else None
            for name, value in line.items()
        }
        for line in lines
    ]


def from_sql(text):
    with sqlite3.connect(":memory:") as base:
        base.executescript(text)
        base.executescript(text.split(";", 1)[0] + ";")  # another run into the same file
        base.row_factory = sqlite3.Row
        found = [dict(line) for line in base.execute(f"SELECT * FROM {TABLE} ORDER BY rowid")]
    base.close()
    return found


NULLABLE = {field.name for field in dataclasses.fields(Row) if "None" in field.type}


def unflattened(values):
    return {name: json.loads(value) if name.startswith("samples_") else value for name, value in values.items()}


def close(found, rows):
    """SQLite reads decimals with its own arithmetic, which may be off in the last bit."""
    wanted = [record(row) for row in rows]
    assert [list(one) for one in found] == [list(one) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        for name, value in other.items():
            same = one[name] == (pytest.approx(value, rel=1e-14) if isinstance(value, float) else value)
            assert same, name


@settings(deadline=None, max_examples=60)
@given(rows_of, st.sampled_from(["json", "jsonl"]))
@example(NAMED, "json")
@example(NAMED, "jsonl")
def test_json_read_back_gives_the_rows(rows, kind):
    text = text_of(kind, rows)
    assert text.isascii()
    found = json.loads(text) if kind == "json" else [json.loads(line) for line in text.splitlines()]
    assert found == [record(row) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows")
        path.write_text(text)
        assert not rows or read_rows(path) == tuple(rows)


@settings(deadline=None, max_examples=60)
@given(rows_of)
@example(NAMED)
def test_csv_read_back_gives_the_rows(rows):
    assert [unflattened(one) for one in from_csv(text_of("csv", rows))] == [record(row) for row in rows]


@settings(deadline=None, max_examples=60)
@given(rows_of)
@example(NAMED)
def test_sql_read_back_gives_the_rows(rows):
    close([unflattened(one) for one in from_sql(text_of("sql", rows))], rows)


@settings(deadline=None, max_examples=60)
@given(rows_of)
def test_a_row_of_the_table_is_one_line_of_as_many_cells(rows):
    lines = text_of("md", rows).split("\n")[2:-1]
    assert len(lines) == len(rows)
    for line in lines:
        assert line.replace("\\|", "").count("|") == header().split("\n")[0].count("|")
        assert line.isprintable()


@given(st.lists(st.integers(0, 10**9 - 1), min_size=1, max_size=20))
def test_a_list_of_counts_is_read_back(counts):
    assert parse_counts("-p", ",".join(map(str, counts))) == tuple(counts)


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 50), st.data())
def test_a_range_is_that_of_python(first, step, n_values, data):
    last = first + step * (n_values - 1) + data.draw(st.integers(0, step - 1))
    assert parse_counts("-p", f"{first}-{last}+{step}") == tuple(range(first, last + 1, step))


@given(st.integers(1, 1000), st.integers(2, 10), st.integers(0, 5), st.data())
def test_a_range_of_powers(first, factor, n_steps, data):
    end = first * factor**n_steps
    last = data.draw(st.integers(end, end * factor - 1))
    assert parse_counts("-p", f"{first}-{last}*{factor}") == tuple(first * factor**n for n in range(n_steps + 1))


def test_every_field_is_drawn():
    assert FIELDS.keys() == PLAIN.keys()
    assert len(FORMATS) == 5  # md, and the four read back above
