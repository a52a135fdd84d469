"""The table of tensors in a file of another kind: what it says is read, and nothing of it is believed unseen."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoint import HIDDEN, INTERMEDIATE, VOCAB, write_config

from llmrun.checkpoint import ModelSpec, TensorSpec, read_spec
from llmrun.checkpoint.listed import LISTED_FILE, Listed
from llmrun.errors import CheckpointError

SHAPES = {
    "model.embed_tokens.weight": (VOCAB, HIDDEN),
    "model.layers.0.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
    "model.layers.0.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
    "model.layers.0.norm.weight": (HIDDEN,),
    "model.norm.weight": (HIDDEN,),
    "lm_head.weight": (VOCAB, HIDDEN),
}
Q_PROJ = 1  # its place in the table
BLOB_BYTES = 4 * sum(HIDDEN * (shape[0] if shape[1:] else 1) for shape in SHAPES.values()) + 64


def listed(file: Path | str, written_ns: int | None) -> Listed:
    """Every tensor as F32, one after another from byte 64 on; rows of q in pairs, norms to be lowered by one."""
    tensors, at = [], 64
    for name, shape in SHAPES.items():
        nbytes = 4 * HIDDEN * (shape[0] if len(shape) > 1 else 1)
        paired = 4 if "q_proj" in name else None
        tensors.append(TensorSpec(name, str(file), at, nbytes, "F32", shape, paired, minus_one="norm" in name))
        at += nbytes
    return Listed(str(file), "/the/users/w.gguf", BLOB_BYTES, written_ns, tuple(tensors))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a sound table, and that table."""
    folder = tmp_path_factory.mktemp("model")
    blob = tmp_path_factory.mktemp("elsewhere") / "weights.gguf"
    blob.write_bytes(bytes(BLOB_BYTES))
    write_config(folder, num_hidden_layers=1)
    return folder, json.loads(listed(blob, blob.stat().st_mtime_ns).to_json())


def outcome(folder: Path, table: Any) -> ModelSpec | CheckpointError:
    (folder / LISTED_FILE).write_text(json.dumps(table))
    try:
        return read_spec(folder)
    except CheckpointError as error:
        return error


def changed(table: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The table with other fields for the tensor ``Q_PROJ``; those of the table itself are as ``its_...``."""
    of_table = {key.removeprefix("its_"): fields.pop(key) for key in list(fields) if key.startswith("its_")}
    tensors = [*table["tensors"]]
    tensors[Q_PROJ] = tensors[Q_PROJ] | fields
    return table | {"tensors": tensors} | of_table


def test_what_is_written_is_what_is_read(made: tuple[Path, dict[str, Any]]) -> None:
    folder, table = made
    spec = outcome(folder, table)
    assert isinstance(spec, ModelSpec)
    found = {tensor for unit in spec.units for tensor in unit.tensors}
    assert found == set(listed(table["file"], None).tensors)
    assert spec.path(spec.embedding.file) == Path(table["file"])


def test_a_file_of_the_folder_itself_moves_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "before"
    folder.mkdir()
    write_config(folder, num_hidden_layers=1)
    (folder / LISTED_FILE).write_bytes(listed("weights.gguf", None).to_json())
    (folder / "weights.gguf").write_bytes(bytes(BLOB_BYTES))
    os.utime(folder / "weights.gguf", ns=(1, 1))
    spec = read_spec(folder.rename(tmp_path / "after"))
    assert spec.path(spec.embedding.file) == tmp_path / "after" / "weights.gguf"


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"its_file": "../weights.gguf"}, "neither an absolute path nor"),
    ({"its_file": ".."}, "neither an absolute path nor"),
    ({"its_file": ""}, "neither an absolute path nor"),
    ({"its_file": "/a\0b"}, "neither an absolute path nor"),
    ({"its_file": 3}, "neither an absolute path nor"),
    ({"its_nbytes": -1}, "no length"),
    ({"its_nbytes": True}, "no length"),
    ({"its_nbytes": 100}, "their file at byte 100"),
    ({"its_tensors": []}, "no tensors"),
    ({"its_tensors": [3]}, "describes no tensor"),
    ({"name": 3}, "describes no tensor"),
    ({"name": "lm_head.weight"}, "occurs twice"),
    ({"dtype": "Q2_K"}, "'Q2_K'"),
    ({"dtype": "Q8_0"}, "'Q8_0' [8, 8]"),  # eight columns are no block
    ({"dtype": ["F32"]}, "['F32']"),
    ({"shape": []}, "the shape []"),
    ({"shape": [2**60, 2**60]}, "256 bytes long"),
    ({"shape": [8, -8]}, "the shape [8, -8]"),
    ({"shape": [8, 0]}, "256 bytes long"),
    ({"offset": 2**70}, "the place and length"),
    ({"offset": 2**62}, "ends at byte"),
    ({"offset": 0}, "overlaps"),
    ({"nbytes": 255}, "255 bytes long"),
    ({"paired_head_dim": 3}, "heads of 3"),
    ({"paired_head_dim": 0}, "heads of 0"),
    ({"paired_head_dim": 16}, "8 rows in pairs of heads of 16"),
    ({"minus_one": 1}, "minus_one 1"),
]


@pytest.mark.parametrize(("fields", "words"), BROKEN)
def test_what_makes_no_sense_is_refused(made: tuple[Path, dict[str, Any]], fields: dict[str, Any], words: str) -> None:
    folder, table = made
    error = outcome(folder, changed(table, **fields))
    assert isinstance(error, CheckpointError)
    assert (error.reference, LISTED_FILE in error.message) == ("broken-index", True)
    assert words in error.message


@pytest.mark.parametrize(
    ("fields", "reference", "words"),
    [
        ({"its_schema": 2}, "unsupported-format", "the schema 2"),
        ({"its_file": "/nowhere/w.gguf"}, "gguf-changed", "/the/users/w.gguf, which holds the weights, is not there"),
        ({"its_file": "weights.gguf"}, "gguf-changed", "is not there"),
        ({"its_file": "/dev/null"}, "unreadable", "not a regular file"),
        ({"its_nbytes": BLOB_BYTES + 32}, "gguf-changed", f"{BLOB_BYTES:,} bytes long, and was {BLOB_BYTES + 32:,}"),
        ({"its_written_ns": 17}, "gguf-changed", "was written to after it was imported"),
    ],
)
def test_a_file_that_is_not_the_one_that_was_imported_is_refused(
    made: tuple[Path, dict[str, Any]], fields: dict[str, Any], reference: str, words: str
) -> None:
    folder, table = made
    error = outcome(folder, changed(table, **fields))
    assert isinstance(error, CheckpointError)
    assert error.reference == reference
    assert words in error.message


NUMBERS = st.one_of(st.integers(-2, 2000), st.sampled_from([2**31, 2**60, 2**63, 2**64, -(2**60), 10**30]))
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
FIELDS = ["name", "dtype", "shape", "offset", "nbytes", "paired_head_dim", "minus_one"]
ITS_FIELDS = ["its_schema", "its_file", "its_nbytes", "its_written_ns", "its_tensors"]


@given(st.dictionaries(st.sampled_from(FIELDS + ITS_FIELDS), st.one_of(JUNK, st.lists(NUMBERS, max_size=3))))
@settings(deadline=None)
def test_a_strange_table_is_read_or_refused(made: tuple[Path, dict[str, Any]], fields: dict[str, Any]) -> None:
    folder, table = made
    got = outcome(folder, changed(table, **fields))
    if isinstance(got, ModelSpec):
        assert all(tensor.offset + tensor.nbytes <= BLOB_BYTES for unit in got.units for tensor in unit.tensors)
