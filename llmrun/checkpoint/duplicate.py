"""Whether two tensors are the same, from a few kilobytes of each."""

from __future__ import annotations

import os
from pathlib import Path

from llmrun.checkpoint.spec import TensorSpec
from llmrun.checkpoint.strict_json import open_regular
from llmrun.errors import CheckpointError

SAMPLE_BYTES = 4096


def same_samples(folder: Path, one: TensorSpec, other: TensorSpec) -> bool:
    """Whether the tensors agree in type, shape and in the bytes of three samples (start, middle, end).

    Two matrices that were trained apart differ almost everywhere, so that 12 KiB tell them from a duplicate.

    Raises:
        CheckpointError: ``unreadable``.
    """
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    last = max(0, one.nbytes - SAMPLE_BYTES)
    return all(_bytes_at(folder, one, start) == _bytes_at(folder, other, start) for start in (0, last // 2, last))


def _bytes_at(folder: Path, tensor: TensorSpec, start: int) -> bytes:
    descriptor = open_regular(folder / tensor.file, tensor.file)
    try:
        with os.fdopen(descriptor, "rb") as file:
            file.seek(tensor.offset + start)
            return file.read(min(SAMPLE_BYTES, tensor.nbytes - start))
    except OSError as error:
        raise CheckpointError("unreadable", f"cannot read {folder / tensor.file}: {error.strerror}") from error
