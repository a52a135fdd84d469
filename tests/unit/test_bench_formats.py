import io
import json
from pathlib import Path

import pytest
from made_rows import made_row, text_of

from llmrun.bench.formats import FORMATS, writer
from llmrun.bench.record import sql_types
from llmrun.bench.rows_file import read_rows
from llmrun.errors import UsageError

OF_LLAMA_BENCH = """
    cpu_info gpu_info model_filename model_type model_size model_n_params n_threads n_prompt n_gen n_depth
    test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts
""".split()  # noqa: SIM905
OURS = """
    ttft_ms tpot_ms itl_ms itl_p99_ms ceiling_ts mbu predicted_ts disk_bytes_per_token stall_share ram_peak_bytes
    ram_budget_bytes vram_peak_bytes vram_budget_bytes cache_state plan_id planner seed llmrun_version schema_version
""".split()  # noqa: SIM905


class Recorder(io.StringIO):
    """What had been written at each flush."""

    def __init__(self):
        super().__init__()
        self.flushed = []

    def flush(self):
        super().flush()
        self.flushed.append(self.getvalue())


def write(tmp_path, text) -> Path:
    path = tmp_path / "rows"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_fields_of_llama_bench_and_ours():
    (found,) = json.loads(text_of("json", [made_row()]))
    assert found.keys() >= {*OF_LLAMA_BENCH, *OURS}
    assert found["avg_ns"] == 2_000_000_000
    assert found["stddev_ns"] == 40_000_000
    assert found["samples_ts"] == pytest.approx([64, 62.745098, 65.306122])
    assert found["avg_ts"] == pytest.approx(64.0170735)
    assert found["stddev_ts"] == pytest.approx(1.2805976)
    assert found["vram_peak_bytes"] is None
    assert type(found["avg_ns"]) is int
    names = list(found)
    assert names[names.index("test_time") :][:5] == ["test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts"]
    assert names[-2:] == ["samples_ns", "samples_ts"]


def test_an_unknown_format_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="'yaml'") as caught:
        writer("yaml", io.StringIO())
    assert caught.value.reference == "bad-option"
    assert caught.value.hint == "one of md, csv, json, jsonl, sql"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_is_out_as_soon_as_it_is_measured(kind):
    stream = Recorder()
    out = writer(kind, stream)
    out.begin()
    for number in (1, 2):
        row = made_row(n_gen=number, plan_id=f"plan-{number}")
        out.row(row)
        mark = f"tg{number} " if kind == "md" else f"plan-{number}"
        assert mark in stream.flushed[-1]
        assert stream.flushed[-1] == stream.getvalue()


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_no_rows_are_still_valid(kind):
    assert json.loads(text_of(kind, []) or "[]") == []


def test_what_cannot_be_written_everywhere_is_replaced():
    (found,) = json.loads(text_of("json", [made_row(model_filename="a\udcffb\0c", mbu=float("inf"))]))
    assert found["model_filename"] == "a?b?c"
    assert found["mbu"] is None


def test_columns_have_types():
    kinds = sql_types()
    assert (kinds["avg_ns"], kinds["vram_peak_bytes"], kinds["seed"]) == ("INTEGER",) * 3
    assert (kinds["avg_ts"], kinds["mbu"]) == ("REAL",) * 2
    assert (kinds["model_type"], kinds["sweep"], kinds["samples_ns"]) == ("TEXT",) * 3


def test_a_table_without_unicode():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    out = writer("md", stream)
    out.begin()
    out.row(made_row())
    assert b"| 64.02 +- 1.28 |" in b" ".join(stream.buffer.getvalue().split())


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_rows_are_read_back(tmp_path, kind):
    rows = (made_row(), made_row(n_prompt=512, seed=-3, sweep="2GiB", vram_peak_bytes=7))
    assert read_rows(write(tmp_path, text_of(kind, rows))) == rows
    assert read_rows(write(tmp_path, b"\xef\xbb\xbf\n " + text_of(kind, rows).encode())) == rows


def changed(**changes):
    """A file of one row with some fields changed; ``...`` takes one away."""
    (values,) = json.loads(text_of("json", [made_row()]))
    return json.dumps([{name: value for name, value in (values | changes).items() if value is not ...}])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there are no rows in it"),
        ("[]", "there are no rows in it"),
        ("[", "it is no JSON"),
        (text_of("json", [made_row()])[:-2], "it is no JSON"),
        (text_of("jsonl", [made_row()]) + '{"a', "line 2: it is no JSON"),
        ("| model |", "line 1: it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        (b"\xff\xfe", "it is no text"),
        ("[1]", "row 1 is no object"),
        ('[{"avg_ts": 1}]', "row 1 has no schema_version; another program wrote it"),
        (changed(schema_version=7), "row 1 has schema_version 7, where this llmrun reads 1"),
        (changed(n_gen=...), "row 1: n_gen: Field required"),
        (changed(n_gen="128"), "row 1: n_gen: Input should be a valid integer"),
        (changed(n_gen=1.5), "row 1: n_gen: Input should be a valid integer"),
        (changed(mbu=float("nan")), "row 1: mbu: Input should be a finite number"),
        (changed(surprise=1), "row 1: surprise: Unexpected keyword argument"),
        (changed(samples_ns=[1, "2"]), "row 1: samples_ns.1: Input should be a valid integer"),
        (changed(samples_ns=[]), "samples_ns: a case takes time"),
        (changed(samples_ns=[5, 0]), "samples_ns: a case takes time"),
        (changed(samples_ns=[-5]), "samples_ns: out of range"),
        (changed(n_gen=10**400), "n_gen: out of range"),
        (changed(n_gen=0), "both are 0"),
    ],
)
def test_another_file_is_refused_with_what_is_wrong(tmp_path, text, words):
    with pytest.raises(UsageError) as caught:
        read_rows(write(tmp_path, text))
    assert caught.value.reference == "bad-bench-file"
    assert words in caught.value.message
    assert caught.value.hint == "`llmrun bench -o json > FILE` writes such a file"


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError) as caught:
            read_rows(path)
        assert caught.value.reference == "file-unreadable"
        assert str(path) in caught.value.message
