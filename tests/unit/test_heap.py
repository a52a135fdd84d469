"""What the C library keeps of freed memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmrun.units import MIB

# Pieces of 2 MiB lie in the heap; every second one is freed, so that it cannot shrink from its end.
HOLES = """
import ctypes
from llmrun.hardware import process_memory
from llmrun.hardware.heap import keep_heap_small, trim_heap
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
keep_heap_small()
pieces = [libc.malloc(ctypes.c_size_t(2 << 20)) for _ in range(64)]
for piece in pieces:
    ctypes.memset(piece, 1, 2 << 20)
for piece in pieces[::2]:
    libc.free(ctypes.c_void_p(piece))
before = process_memory().anonymous_bytes
trim_heap()
print(before - process_memory().anonymous_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_trimming_gives_back_the_holes() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 48 * MIB
