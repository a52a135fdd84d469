"""Rows of the embedding matrix, read from the checkpoint one by one where the matrix is not resident.

A token needs one row of a few KiB, a prompt a few hundred. They are read through the page cache without read-ahead, so
that words which come again cost nothing; all at once, because each waits behind the large requests for the layers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llmrun.checkpoint.spec import TensorSpec
from llmrun.errors import DeviceError
from llmrun.hardware.direct_io import read_at

REQUESTS = 16


class EmbeddingRows:
    """Gathers rows of a matrix of shape ``(V, D)`` from its file."""

    def __init__(self, path: Path, tensor: TensorSpec) -> None:
        self.bytes_read = 0
        self._path = path
        self._tensor = tensor
        self._row_bytes = tensor.nbytes // tensor.shape[0]
        self._descriptor = os.open(path, os.O_RDONLY)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="rows")

    def read(self, ids: Sequence[int]) -> bytearray:
        """The rows of ``ids``, in their order.

        Raises:
            DeviceError: ``read-failed``, with the file and the offset.
        """
        rows = bytearray(len(ids) * self._row_bytes)
        view = memoryview(rows)
        targets = [view[i * self._row_bytes : (i + 1) * self._row_bytes] for i in range(len(ids))]
        if len(ids) == 1:
            self._read_row(ids[0], targets[0])
        else:
            list(self._pool.map(self._read_row, ids, targets))
        self.bytes_read += len(rows)
        return rows

    def close(self) -> None:
        """Close the file."""
        self._pool.shutdown()
        os.close(self._descriptor)

    def _read_row(self, row: int, target: memoryview) -> None:
        offset = self._tensor.offset + row * self._row_bytes
        try:
            count = read_at(self._descriptor, target, offset)
        except OSError as error:
            raise DeviceError(
                "read-failed", f"{self._path}: cannot read at offset {offset:,}: {error.strerror}"
            ) from error
        if count < self._row_bytes:
            raise DeviceError("read-failed", f"{self._path}: the file ends before offset {offset + self._row_bytes:,}")
