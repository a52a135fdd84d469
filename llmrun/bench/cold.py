"""A cold start: what the operating system keeps of a checkpoint's files is dropped before it."""

from __future__ import annotations

import os
from pathlib import Path

from llmrun.checkpoint.spec import ModelSpec


def drop_page_cache(spec: ModelSpec) -> bool:
    """Drop the checkpoint's files from the page cache, as anyone may who can read them; False where that cannot be.

    Pages that another process maps stay. Weights are read past the page cache wherever the file system lets us, so
    that what stays matters little.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    files = {tensor.file for unit in spec.units for tensor in unit.tensors}
    try:
        for file in files:
            _drop(spec.path(file))
    except OSError:
        return False
    return True


def _drop(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # pages that are not on the disk yet cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
