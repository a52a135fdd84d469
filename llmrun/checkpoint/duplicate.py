"""Whether two tensors are the same, from a few kilobytes of each."""

from __future__ import annotations

from llmrun.checkpoint.files import Files
from llmrun.checkpoint.spec import TensorSpec

SAMPLE_BYTES = 4096


def same_samples(files: Files, one: TensorSpec, other: TensorSpec) -> bool:
    """Whether the tensors agree in type, shape and in the bytes of three samples (start, middle, end).

    Two matrices that were trained apart differ almost everywhere, so that 12 KiB tell them from a duplicate.

    Raises:
        CheckpointError: ``unreadable``.
    """
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    last = max(0, one.nbytes - SAMPLE_BYTES)
    return all(_bytes_at(files, one, start) == _bytes_at(files, other, start) for start in (0, last // 2, last))


def _bytes_at(files: Files, tensor: TensorSpec, start: int) -> bytes:
    return files.read(tensor.file, tensor.offset + start, min(SAMPLE_BYTES, tensor.nbytes - start))
