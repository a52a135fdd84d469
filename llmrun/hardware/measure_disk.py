"""Direct-I/O reading of the checkpoint's own bytes: how fast, in which shape, how evenly. Needs no torch."""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from llmrun.errors import DeviceError
from llmrun.hardware.buffer import allocate
from llmrun.hardware.direct_io import BLOCK_BYTES, READERS, WeightFile
from llmrun.hardware.speeds import DiskSpeed, ReadShape
from llmrun.hardware.timing import spread
from llmrun.units import MIB

PAGE_BYTES = 4096
SMALLEST_SAMPLE_BYTES = 64 * MIB
"""A checkpoint with fewer bytes says nothing about a disk, and is never streamed either."""

SHAPES = tuple(
    (block * MIB, in_flight) for block, in_flight in ((1, 4), (1, 16), (4, 4), (4, 16), (16, 2), (32, 2), (32, 4))
)
"""Tried beside the runtime's own 4 x 16 MiB: (bytes of a request, requests in flight); 128 MiB at most."""

BURST_SHARE, BRIEF_BURST_SHARE = 0.12, 0.3
"""Of the time, read first and not counted: a disk that is rationed gives its savings away at first, and one that slept,
or whose virtual machine did, takes up to a second to reach its speed."""

STRETCH_BYTES = 64 * MIB
SAMPLES, SHAPE_SAMPLES = 16, 4
WINDOW = 5
"""Samples that count together, 0.3 s: a disk that is rationed stops and goes, about ten times a second."""

OWN_SHARE, SINGLE_SHARE, PAGE_SHARE = 0.42, 0.1, 0.02


@dataclass(frozen=True)
class Done:
    """A request that is complete: when (``time.perf_counter``), and how many bytes came."""

    at_s: float
    nbytes: int


@dataclass(frozen=True)
class Reading:
    """What came in between two times; ``done``, in order of time, holds at least one request."""

    began_s: float
    ended_s: float
    done: tuple[Done, ...]

    def rates(self, count: int) -> list[float]:
        """Bytes a second in each of ``count`` equal parts.

        A request's bytes are spread over the time since the one before it was complete, so that a part that is shorter
        than a request takes is not counted as empty. Where few were complete in time, the later ones count too.
        """
        times, sums = [self.began_s], [0]
        for one in self.done:
            times.append(max(one.at_s, times[-1] + 1e-9))
            sums.append(sums[-1] + one.nbytes)
        in_time = bisect_right(times, self.ended_s) - 1
        part_s = ((self.ended_s if in_time > count else times[-1]) - self.began_s) / count

        def read_until(at_s: float) -> float:
            after = min(max(bisect_right(times, at_s), 1), len(times) - 1)
            share = min(1.0, (at_s - times[after - 1]) / (times[after] - times[after - 1]))
            return sums[after - 1] + share * (sums[after] - sums[after - 1])

        edges = [read_until(self.began_s + part_s * index) for index in range(count + 1)]
        return [(end - begin) / part_s for begin, end in pairwise(edges)]


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of every ``window`` values in a row."""
    return [fmean(values[begin : begin + window]) for begin in range(len(values) - window + 1)]


def checkpoint_files(folder: Path) -> list[Path]:
    """The safetensors files at or below ``folder``, largest first; none where nothing can be looked at.

    Where there are none, the GGUF files: an imported model has a link to its own.
    """
    sizes: dict[Path, int] = {}
    try:
        paths = list(folder.rglob("*.safetensors")) or list(folder.rglob("*.gguf"))
        for path in paths:
            if path.is_file() and (nbytes := path.stat().st_size):
                sizes[path.resolve()] = nbytes
    except OSError:
        return []
    return sorted(sizes, key=lambda path: (-sizes[path], path))


def sample_bytes(files: Iterable[Path]) -> int:
    """Bytes that there are to read."""
    return sum(file.stat().st_size for file in files)


class Blocks:
    """Blocks of files, at random stretches and in order within each, as layers are read; none twice before all were.

    May be asked by several threads.
    """

    def __init__(self, files: Sequence[WeightFile], seed: int = 0) -> None:
        self._files = files
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._left: list[tuple[WeightFile, range]] = []

    def take(self, block_bytes: int) -> tuple[WeightFile, int]:
        """A file and an offset where ``block_bytes`` begin, fewer at the end of a file."""
        with self._lock:
            if not self._left:
                self._left = [
                    (file, range(begin, min(begin + STRETCH_BYTES, file.nbytes)))
                    for file in self._files
                    for begin in range(0, file.nbytes, STRETCH_BYTES)
                ]
                self._random.shuffle(self._left)
            file, stretch = self._left.pop()
            if len(stretch) > block_bytes:
                self._left.append((file, stretch[block_bytes:]))
            return file, stretch.start


@contextmanager
def opened(paths: Iterable[Path]) -> Iterator[list[WeightFile]]:
    """The files, open for direct reads.

    Raises:
        DeviceError: ``read-failed``, one cannot be opened.
    """
    files: list[WeightFile] = []
    try:
        for path in paths:
            files.append(WeightFile(path))
        yield files
    finally:
        for file in files:
            file.close()


def touched(nbytes: int) -> memoryview:
    """Page-aligned memory whose pages are all there already."""
    memory = allocate(nbytes)
    memory[::PAGE_BYTES] = bytes(len(memory[::PAGE_BYTES]))
    return memory


class Readers:
    """Threads that read block after block, each into its own part of ``memory``, until stopped."""

    def __init__(self, blocks: Blocks, memory: memoryview, block_bytes: int, in_flight: int) -> None:
        assert block_bytes * in_flight <= len(memory), "every request has memory of its own"
        self._blocks = blocks
        self._stop = threading.Event()
        self._done: list[Done] = []
        self._failure: DeviceError | None = None
        targets = [memory[i * block_bytes : (i + 1) * block_bytes] for i in range(in_flight)]
        self._threads = [threading.Thread(target=self._read, args=(target,), daemon=True) for target in targets]
        self._began_s = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def stop(self) -> Reading:
        """End the threads, each after its request; what they have read until now.

        Raises:
            DeviceError: a read failed.
        """
        ended_s = time.perf_counter()
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._failure:
            raise self._failure
        return Reading(self._began_s, ended_s, tuple(sorted(self._done, key=lambda done: done.at_s)))

    def _read(self, target: memoryview) -> None:
        try:
            while True:  # at least once
                file, offset = self._blocks.take(len(target))
                count = file.read(target, offset)
                self._done.append(Done(time.perf_counter(), count))
                if self._stop.is_set():
                    return
        except DeviceError as error:
            self._failure = error
            self._stop.set()

    def wait(self, seconds: float) -> None:
        """Let them read for that long, less where one failed."""
        self._stop.wait(seconds)


@dataclass(frozen=True)
class _Disk:
    blocks: Blocks
    memory: memoryview

    def shape(self, block_bytes: int, in_flight: int, seconds: float, count: int = 1, window: int = 1) -> ReadShape:
        """Read in that shape, at least one request each; the spread over ``window`` of ``count`` parts of the time."""
        readers = Readers(self.blocks, self.memory, block_bytes, in_flight)
        readers.wait(seconds)
        return ReadShape(block_bytes, in_flight, spread(moving_mean(readers.stop().rates(count), window)))


def measure_disk(files: Sequence[Path], limit_s: float, *, brief: bool = False) -> DiskSpeed:
    """Read those files for about ``limit_s``; what a slow disk could not show in that time is left out.

    ``brief``: in the shape alone in which the runtime reads.

    Memory: 128 MiB while it goes on.

    Raises:
        DeviceError: ``read-failed``.
    """
    with opened(files) as weights:
        disk = _Disk(Blocks(weights), touched(max(block * n for block, n in (*SHAPES, (BLOCK_BYTES, READERS)))))
        burst_share = BRIEF_BURST_SHARE if brief else BURST_SHARE
        burst = disk.shape(BLOCK_BYTES, READERS, burst_share * limit_s)
        others_s = (1 - burst_share - OWN_SHARE - SINGLE_SHARE - PAGE_SHARE) * limit_s
        shape_s = others_s / len(SHAPES)
        at_once = 0 if brief else 2 * shape_s * burst.bytes_per_s.p50
        shapes = [disk.shape(block, n, shape_s, SHAPE_SAMPLES) for block, n in SHAPES if block * n <= at_once]
        own_s = OWN_SHARE * limit_s + (others_s if brief else 0.0)
        own = disk.shape(BLOCK_BYTES, READERS, own_s, SAMPLES, WINDOW)
        single = disk.shape(BLOCK_BYTES, 1, SINGLE_SHARE * limit_s)
        page = disk.shape(PAGE_BYTES, 1, PAGE_SHARE * limit_s)
    ordered = sorted([*shapes, own, single], key=lambda shape: (shape.block_bytes, shape.in_flight))
    return DiskSpeed(own.bytes_per_s, single.bytes_per_s.p50, PAGE_BYTES / page.bytes_per_s.p50, tuple(ordered))
