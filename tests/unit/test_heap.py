"""What the C library keeps of freed memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmrun.environment import for_models
from llmrun.units import MIB

# Pieces of 2 MiB lie in the heap; every second one is freed, so that it cannot shrink from its end.
HOLES = """
import ctypes
from llmrun.hardware import process_memory
from llmrun.hardware.heap import keep_heap, trim_heap
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
keep_heap()
pieces = [libc.malloc(ctypes.c_size_t(2 << 20)) for _ in range(64)]
for piece in pieces:
    ctypes.memset(piece, 1, 2 << 20)
for piece in pieces[::2]:
    libc.free(ctypes.c_void_p(piece))
before = process_memory().anonymous_bytes
trim_heap()
print(before - process_memory().anonymous_bytes)
"""

# A piece of 24 MiB, written, freed and written again, by a thread as the engine is one.
AGAIN = """
import ctypes, resource, threading
from llmrun.hardware.heap import keep_heap
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
keep_heap()
def work():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        piece = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(24 << 20)))
        ctypes.memset(piece, 1, 24 << 20)
        libc.free(piece)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""

# The activations of 480 tokens in layers as those of a 7B, aligned as torch aligns them: 62 MiB at a time.
LAYERS = """
import ctypes
from llmrun.hardware.heap import keep_heap
libc = ctypes.CDLL(None)
class Heap(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", *"abcdefghi")]
libc.mallinfo2.restype = Heap
keep_heap()
def take(width):
    piece = ctypes.c_void_p()
    assert not libc.posix_memalign(ctypes.byref(piece), 64, ctypes.c_size_t(480 * 4 * width))
    return piece
states = take(4096)
for _ in range(32):
    normed = take(4096)
    gate, up = take(11008), take(11008)
    libc.free(gate)
    product = take(11008)
    libc.free(up)
    given = take(4096)
    libc.free(product)
    libc.free(normed)
    libc.free(states)
    states = given
print(libc.mallinfo2().arena)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_what_is_freed_is_there_for_the_next() -> None:
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert second < first / 10


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_a_layer_finds_the_activations_of_the_one_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAYERS], capture_output=True, text=True, check=True, env=for_models(os.environ)
    )
    assert int(done.stdout) < (62 + 2 * 21) * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_trimming_gives_back_the_holes() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 48 * MIB
