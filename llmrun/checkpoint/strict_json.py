"""JSON that comes from strangers: bounded, without duplicate keys, and every defect is one kind of error."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from llmrun.errors import CheckpointError
from llmrun.units import MIB, format_bytes

if TYPE_CHECKING:
    from llmrun.checkpoint.files import Files

MAX_CONFIG_BYTES = 16 * MIB
MAX_INDEX_BYTES = 100 * MIB
MAX_COUNT = 2**63 - 1


def open_regular(path: Path, name: str) -> int:
    """A descriptor of the regular file ``path``, read only.

    Raises:
        CheckpointError: ``missing-shard`` (no such file), ``unreadable`` (anything else).
    """
    try:
        # without O_NONBLOCK a named pipe of that name would hang us
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise CheckpointError("missing-shard", f"{name} is not in {path.parent}") from error
        raise CheckpointError("unreadable", f"cannot open {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError("unreadable", f"{path} is not a regular file")
    return descriptor


def read_json(files: Files, file: str, *, reference: str, max_bytes: int) -> dict[str, Any]:
    """The JSON object in a small file.

    Raises:
        CheckpointError: ``reference`` if it is not one, ``missing-shard`` or ``unreadable`` if it cannot be read.
    """
    file_bytes = files.nbytes(file)
    if file_bytes > max_bytes:
        raise CheckpointError(reference, f"{file} is larger than {format_bytes(max_bytes)}")
    return parse_object(files.read(file, 0, file_bytes), name=file, reference=reference)


def parse_object(data: bytes, *, name: str, reference: str) -> dict[str, Any]:
    """The JSON object that ``data`` spells; ``name`` is the file, for the message.

    Raises:
        CheckpointError: ``reference``.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError as error:
        raise CheckpointError(reference, f"{name}: JSON is nested too deeply") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, numbers of thousands of digits
        raise CheckpointError(reference, f"{name}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(reference, f"{name}: not a JSON object")
    return value


def is_counts(value: object) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers from 0 to ``MAX_COUNT``."""
    return isinstance(value, list) and all(type(number) is int and 0 <= number <= MAX_COUNT for number in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [key for key, _ in pairs]
        duplicate = next(key for key in result if names.count(key) > 1)
        raise ValueError(f"the name {duplicate!r} occurs twice")
    return result
