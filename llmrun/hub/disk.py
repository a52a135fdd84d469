"""Room on the disk: asked for before a long write, and told in the same words when it runs out on the way."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmrun.errors import DeviceError, Row
from llmrun.units import format_bytes

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_room(folder: Path, needed_bytes: int) -> None:
    """Make sure that ``needed_bytes`` can be written under ``folder``, which need not exist yet.

    Raises:
        DeviceError: ``disk-full``.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise disk_full(folder, needed_bytes, free_bytes)


def disk_full(folder: Path, needed_bytes: int, free_bytes: int) -> DeviceError:
    """The error with its table and hint."""
    short_bytes = needed_bytes - free_bytes
    # a file may also end at a quota or at `ulimit -f`, on a disk that has room
    why = f"short by {format_bytes(short_bytes)}" if short_bytes > 0 else "but a quota or `ulimit -f` was reached"
    return DeviceError(
        "disk-full",
        f"{folder} has no room for the model",
        rows=(
            Row("needed", format_bytes(needed_bytes)),
            Row("free", format_bytes(free_bytes), why),
        ),
        hint="`llmrun rm MODEL` frees space; LLMRUN_CACHE and HF_HOME choose another disk",
    )


@contextmanager
def writing(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Turn the operating system's errors about writing under ``folder`` into ours.

    Raises:
        DeviceError: ``disk-full``, ``write-failed``.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            existing = next(path for path in (folder, *folder.parents) if path.exists())
            raise disk_full(folder, needed_bytes, shutil.disk_usage(existing).free) from error
        where = error.filename or folder
        raise DeviceError("write-failed", f"{where}: {error.strerror or error}") from error
