"""The plain direct-I/O reader that streaming is measured against: threads that read blocks of files and drop them.

    python benchmarks/reader.py MODEL           # every shape for a second, to see which is fastest here
    python benchmarks/reader.py MODEL --once 8x4MiB   # one read of the whole checkpoint, as JSON

It does nothing else, so it gets what the disk gives: several requests in flight, each into page-aligned memory that is
used again and again, past the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

from common import checkpoint_files, model_folder

from llmrun.hardware.buffer import allocate
from llmrun.units import MIB, format_bytes, format_rate, parse_bytes


@dataclass(frozen=True)
class Shape:
    """How many threads read blocks of how many bytes."""

    threads: int
    block_bytes: int

    def __str__(self) -> str:
        return f"{self.threads}x{self.block_bytes // MIB}MiB"

    @classmethod
    def parse(cls, text: str) -> Shape:
        """A shape as it is printed: ``8x4MiB``."""
        threads, _, block = text.partition("x")
        return cls(int(threads), parse_bytes(block))


SHAPES = tuple(Shape(threads, block * MIB) for threads, block in ((4, 4), (8, 4), (16, 4), (4, 16), (2, 32), (4, 32)))


@dataclass(frozen=True)
class Reading:
    """Bytes that came in, and how long it took."""

    nbytes: int
    seconds: float

    @property
    def bytes_per_s(self) -> float:
        """The bandwidth."""
        return self.nbytes / self.seconds


class PlainReader:
    """Reads files from beginning to end and again; a second reading goes on where the last one stopped."""

    def __init__(self, files: Sequence[Path], shape: Shape) -> None:
        self._descriptors = [os.open(file, os.O_RDONLY | os.O_DIRECT) for file in files]
        self._shape = shape
        self._buffers = [allocate(shape.block_bytes) for _ in range(shape.threads)]
        self._lock = threading.Lock()
        self._endless = cycle(list(self._blocks()))

    def read_for(self, seconds: float) -> Reading:
        """Read for that long."""
        deadline_s = time.monotonic() + seconds

        def blocks() -> Iterator[tuple[int, int]]:
            while time.monotonic() < deadline_s:
                yield next(self._endless)

        return self._read(blocks())

    def read_all(self) -> Reading:
        """Read every file once."""
        return self._read(self._blocks())

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """(descriptor, offset) of each block."""
        for descriptor in self._descriptors:
            for offset in range(0, os.fstat(descriptor).st_size, self._shape.block_bytes):
                yield descriptor, offset

    def _read(self, blocks: Iterator[tuple[int, int]]) -> Reading:
        counts = [0] * self._shape.threads

        def work(index: int) -> None:
            while True:
                with self._lock:
                    block = next(blocks, None)
                if block is None:
                    return
                counts[index] += os.preadv(block[0], [self._buffers[index]], block[1])

        threads = [threading.Thread(target=work, args=(index,)) for index in range(self._shape.threads)]
        began_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Reading(sum(counts), time.monotonic() - began_s)


def best_shape(files: Sequence[Path], seconds: float = 1.0, rounds: int = 2) -> tuple[Shape, dict[str, float]]:
    """The fastest shape here and what each reached at best, in bytes/s; the rounds are interleaved."""
    best = dict.fromkeys(SHAPES, 0.0)
    for _ in range(rounds):
        for shape in SHAPES:
            reader = PlainReader(files, shape)
            best[shape] = max(best[shape], reader.read_for(seconds).bytes_per_s)
            reader.close()
    return max(best, key=lambda shape: best[shape]), {str(shape): rate for shape, rate in best.items()}


def main() -> int:
    """Read as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--once", type=Shape.parse, metavar="SHAPE")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each shape reads (default: 1)")
    args = parser.parse_args()
    files = checkpoint_files(model_folder(args.model))
    if args.once:
        print(json.dumps(asdict(PlainReader(files, args.once).read_all())))
        return 0
    best, rates = best_shape(files, args.seconds)
    total_bytes = sum(file.stat().st_size for file in files)
    print(f"{len(files)} files, {format_bytes(total_bytes)}")
    for shape, rate in rates.items():
        print(f"{shape:>8} {format_rate(rate)}{'  <- fastest' if shape == str(best) else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
