"""Tensors in a file of another kind, read where it lies: a small table beside ``config.json`` says what is in it.

Made by an import (a .gguf file of the user's), read like a safetensors header: with suspicion, and never used for a
file that is no longer the one that it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import PurePath
from typing import Any

from llmrun.checkpoint.files import Files
from llmrun.checkpoint.spec import TensorSpec
from llmrun.checkpoint.strict_json import MAX_INDEX_BYTES, is_counts, read_json
from llmrun.errors import CheckpointError
from llmrun.formats import FORMATS

LISTED_FILE = "llmrun.tensors.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Listed:
    """A file and the tensors in it."""

    file: str  # a name in the folder of the table (it may be a link), or an absolute path
    source: str  # what the user calls it
    nbytes: int
    written_ns: int | None  # when the file was last written; None where it belongs to the folder and moves with it
    tensors: tuple[TensorSpec, ...]

    def to_json(self) -> bytes:
        """The table, for ``LISTED_FILE``."""
        table = {
            "schema": SCHEMA_VERSION,
            "file": self.file,
            "source": self.source,
            "nbytes": self.nbytes,
            "written_ns": self.written_ns,
            "tensors": [_entry(tensor) for tensor in self.tensors],
        }
        return json.dumps(table, separators=(",", ":")).encode()


def read_listed(files: Files) -> dict[str, TensorSpec]:
    """The tensors of the table in ``files``, by name; the file that they lie in is there and unchanged.

    Raises:
        CheckpointError: ``broken-index``, ``gguf-changed``, ``unreadable``, ``unsupported-format`` (of a newer llmrun).
    """
    table = read_json(files, LISTED_FILE, reference="broken-index", max_bytes=MAX_INDEX_BYTES)
    if table.get("schema") != SCHEMA_VERSION:
        raise CheckpointError(
            "unsupported-format",
            f"{LISTED_FILE} has the schema {table.get('schema')!r:.40}, this llmrun reads {SCHEMA_VERSION}",
            hint="import the file again",
        )
    file, length, entries = table.get("file"), [table.get("nbytes")], table.get("tensors")
    if not isinstance(file, str) or not _is_file_name(file):
        raise _broken(f"it names {file!r:.80}, neither an absolute path nor a name in its folder")
    if not is_counts(length) or not isinstance(entries, list) or not entries:
        raise _broken("it has no tensors, or no length of their file")
    tensors = [_tensor(file, entry) for entry in entries]
    _check_places(tensors, length[0])
    _check_unchanged(files, table)
    by_name = {tensor.name: tensor for tensor in tensors}
    if len(by_name) < len(tensors):
        raise _broken("a tensor occurs twice")
    return by_name


def _entry(tensor: TensorSpec) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "offset": tensor.offset,
        "nbytes": tensor.nbytes,
    }
    if tensor.paired_head_dim:
        entry["paired_head_dim"] = tensor.paired_head_dim
    if tensor.minus_one:
        entry["minus_one"] = True
    return entry


def _is_file_name(file: str) -> bool:
    path = PurePath(file)
    return "\0" not in file and (path.is_absolute() or (len(path.parts) == 1 and path.name == file != ".."))


def _tensor(file: str, entry: object) -> TensorSpec:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise _broken(f"{entry!r:.80} describes no tensor")
    name, shape, place = entry["name"], entry.get("shape"), [entry.get("offset"), entry.get("nbytes")]
    if not is_counts(shape) or not shape or not is_counts(place):
        raise _broken(f"{name!r:.120} has the shape {shape!r:.80}, the place and length {place!r:.80}")
    if (nbytes := _nbytes(entry.get("dtype"), shape)) != place[1]:
        raise _broken(f"{name!r:.120} is {entry.get('dtype')!r:.40} {shape!r:.80}, and {place[1]:,} bytes long")
    paired, minus_one = entry.get("paired_head_dim"), entry.get("minus_one", False)
    if paired is not None and (not is_counts([paired]) or paired < 2 or paired % 2 or shape[0] % paired):
        raise _broken(f"{name!r:.120} has {shape[0]:,} rows in pairs of heads of {paired!r:.40}")
    if not isinstance(minus_one, bool):
        raise _broken(f"{name!r:.120} has minus_one {minus_one!r:.40}")
    return TensorSpec(name, file, place[0], nbytes, entry["dtype"], tuple(shape), paired, minus_one)


def _nbytes(dtype: object, shape: list[int]) -> int | None:
    """Bytes of a tensor; ``None`` where the format is not known or a row is not made of its blocks."""
    weights = FORMATS.get(dtype) if isinstance(dtype, str) else None
    if weights is None or shape[-1] <= 0 or shape[-1] % weights.block_weights:
        return None
    return prod(shape[:-1]) * weights.row_bytes(shape[-1])


def _check_places(tensors: list[TensorSpec], nbytes: int) -> None:
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset < end:
            raise _broken(f"{tensor.name!r:.120} at byte {tensor.offset:,} overlaps the tensor before it")
        end = tensor.offset + tensor.nbytes
    if end > nbytes:
        raise _broken(f"a tensor ends at byte {end:,}, their file at byte {nbytes:,}")


def _check_unchanged(files: Files, table: Mapping[str, Any]) -> None:
    """The file is there, as long as the table says and written to at the same time."""
    source, nbytes, written_ns = str(table.get("source")), table["nbytes"], table.get("written_ns")
    try:
        there, last_ns = files.nbytes(table["file"]), files.written_ns(table["file"])
    except CheckpointError as error:
        if error.reference != "missing-shard":
            raise
        raise _changed(source, "is not there any more", "put it back, or `llmrun rm` the model") from error
    own = source == table["file"]  # part of the model's own folder
    again = "`llmrun rm` the model and fetch it again" if own else f"import it as it is now: `llmrun pull {source}`"
    if there != nbytes:
        raise _changed(source, f"is {there:,} bytes long, and was {nbytes:,} when it was imported", again)
    if written_ns is not None and last_ns is not None and written_ns != last_ns:
        raise _changed(source, "was written to after it was imported", again)


def _changed(source: str, what: str, hint: str) -> CheckpointError:
    return CheckpointError("gguf-changed", f"{source}, which holds the weights, {what}", hint=hint)


def _broken(what: str) -> CheckpointError:
    return CheckpointError("broken-index", f"{LISTED_FILE}: {what}", hint="import the file again")
