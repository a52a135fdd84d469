"""Reading blocks of a checkpoint past the page cache: the one place that knows about direct I/O.

Where a file system refuses it (or the system has none) reads are buffered and drop what they left in the page cache.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from llmrun.errors import DeviceError

READERS = 4
"""Requests in flight. The kernel cuts each into many for the disk, so a few large ones keep it as busy as it can be."""

BLOCK_BYTES = 16 << 20
"""Bytes of a request: large, because a reader waits for the interpreter's lock, up to 5 ms, after each of them."""


class WeightFile:
    """A shard, open for reads of aligned blocks from several threads at once.

    Raises:
        DeviceError: ``read-failed``, with the file and the offset.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor, self.direct = _open(path)
            self.nbytes = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise _failure(path, 0, error.strerror or str(error)) from error

    def read(self, target: memoryview, offset: int) -> int:
        """Fill ``target`` from ``offset`` on and return the bytes read.

        Both are aligned to 4096. Only at the end of the file does it stop short of the target's length.
        """
        wanted = min(target.nbytes, self.nbytes - offset)
        done = 0
        while done < wanted:
            try:
                count = read_at(self._descriptor, target[done:], offset + done)
            except OSError as error:
                raise _failure(self.path, offset + done, error.strerror or str(error)) from error
            if count == 0:
                raise _failure(self.path, offset + done, "the file ends here, it was longer when it was opened")
            done += count
        if not self.direct:
            _drop_cache(self._descriptor, offset, wanted)
        return done

    def close(self) -> None:
        """Close the file; no read may be under way."""
        os.close(self._descriptor)


def read_at(descriptor: int, target: memoryview, offset: int) -> int:
    """Read into ``target`` from ``offset`` on, without moving a file position; returns the bytes read."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [target], offset)
    data = os.pread(descriptor, target.nbytes, offset)  # macOS before 11
    target[: len(data)] = data
    return len(data)


def _open(path: Path) -> tuple[int, bool]:
    direct = getattr(os, "O_DIRECT", 0)
    if direct:
        try:
            return os.open(path, os.O_RDONLY | direct), True
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    return os.open(path, os.O_RDONLY), False


def _drop_cache(descriptor: int, offset: int, nbytes: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, nbytes, os.POSIX_FADV_DONTNEED)


def _failure(path: Path, offset: int, why: str) -> DeviceError:
    return DeviceError(
        "read-failed",
        f"{path}: cannot read at offset {offset:,}: {why}",
        hint="check the disk, and that nothing replaced the checkpoint while it was in use",
    )
