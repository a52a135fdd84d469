"""Page-aligned memory that direct I/O can read into and tensors can be viewed in."""

from __future__ import annotations

import contextlib
import mmap


def allocate(nbytes: int, *, huge_pages: bool = True) -> memoryview:
    """``nbytes`` of zeroed, page-aligned anonymous memory; no page of it is resident before it is written.

    Huge pages are asked for where the system has them: fewer pages to pin for a read, fewer TLB misses for a pass; not
    for what is written in small pieces far apart, each of which would make a huge page resident. The memory goes back
    to the system with the last view of it.
    """
    nbytes_mapped = max(nbytes, mmap.PAGESIZE)
    if hasattr(mmap, "MAP_PRIVATE"):  # shared memory, which is the default, gets no huge pages
        region = mmap.mmap(-1, nbytes_mapped, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        region = mmap.mmap(-1, nbytes_mapped)
    if huge_pages and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel built without them
            region.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(region)[:nbytes]
