"""Run a command as if on a smaller machine: bounded RAM (page cache included), disk speed and cores.

    python benchmarks/limited.py --ram 4GiB --disk 1GiB --cores 2 -- llmrun chat MODEL -p "hi"

A control group of the kernel, version 1 or 2, does it, so it needs root. The limit of --ram is for all memory charged
to the command, anonymous and page cache; --disk limits the bytes that it may read in a second from the disk under
--path; --cores is how many processors it may run on. The page cache is dropped first unless --warm, and free
memory is touched, so that the host of a virtual machine has it in place. Prints peak memory
and bytes read on standard error and exits with the command's own status, 137 where the kernel killed it for memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from llmrun.units import parse_bytes

ROOT = Path("/sys/fs/cgroup")
V2 = (ROOT / "cgroup.controllers").exists()
SAMPLE_S = 0.05
_TOUCH = """
import ctypes, sys
from llmrun.hardware.buffer import allocate
memory = allocate(int(sys.argv[1]))
ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, memory.nbytes)
"""


@dataclass(frozen=True)
class Usage:
    """What the commands in a group took; ``None`` where the kernel does not say."""

    peak_memory_bytes: int | None  # page cache included
    peak_anonymous_bytes: int  # sampled 20 times a second: the kernel keeps no peak of it alone
    read_bytes: int | None


@dataclass(frozen=True)
class Limits:
    """A small machine; ``None`` is no limit."""

    ram_bytes: int | None = None
    disk_bytes_per_s: int | None = None
    cores: int | None = None


class SmallMachine:
    """A control group with ``limits``, entered by the commands that ``popen`` starts; removed on exit.

    Args:
        limits: what the machine has.
        path: a path on the disk that is slowed down.
        cold: whether the page cache is dropped first.
    """

    def __init__(self, limits: Limits, path: Path, *, cold: bool = True) -> None:
        if os.geteuid() != 0:
            sys.exit("control groups and dropping the page cache need root")
        self._limits = limits
        self._path = path
        self._cold = cold
        name = f"llmrun-small-machine-{os.getpid()}-{time.monotonic_ns()}"
        self._memory = ROOT / name if V2 else ROOT / "memory" / name
        self._io = ROOT / name if V2 else ROOT / "blkio" / name
        self._peak_anonymous_bytes = 0
        self._left = threading.Event()
        self._sampler = threading.Thread(target=self._sample_until_left, daemon=True)

    def __enter__(self) -> Self:
        if V2:
            with contextlib.suppress(OSError):
                (ROOT / "cgroup.subtree_control").write_text("+memory +io")
        for folder in {self._memory, self._io}:
            folder.mkdir()
        self._limit()
        if self._cold:
            drop_page_cache()
        back_memory(self._limits.ram_bytes)
        self._sampler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._left.set()
        self._sampler.join()
        for folder in {self._memory, self._io}:
            _remove(folder)

    def popen(
        self,
        command: Sequence[str],
        *,
        stdout: IO[bytes] | int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stderr: IO[bytes] | int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command in the group."""
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env, cwd=cwd, preexec_fn=self._enter
        )

    def usage(self) -> Usage:
        """What the group took so far."""
        self._sample()
        peak = self._memory / ("memory.peak" if V2 else "memory.max_usage_in_bytes")
        return Usage(int(peak.read_text()) if peak.exists() else None, self._peak_anonymous_bytes, self._read_bytes())

    def _limit(self) -> None:
        if self._limits.ram_bytes:
            limit = self._memory / ("memory.max" if V2 else "memory.limit_in_bytes")
            limit.write_text(str(self._limits.ram_bytes))
            if V2:
                (self._memory / "memory.swap.max").write_text("0")
        if self._limits.disk_bytes_per_s:
            device = block_device(self._path)
            if V2:
                (self._io / "io.max").write_text(f"{device} rbps={self._limits.disk_bytes_per_s}")
            else:
                throttle = self._io / "blkio.throttle.read_bps_device"
                throttle.write_text(f"{device} {self._limits.disk_bytes_per_s}")

    def _enter(self) -> None:
        """In the child, before the command."""
        for folder in {self._memory, self._io}:
            (folder / "cgroup.procs").write_text(str(os.getpid()))
        if self._limits.cores:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: self._limits.cores])

    def _read_bytes(self) -> int | None:
        file, pattern = ("io.stat", r"rbytes=(\d+)") if V2 else ("blkio.throttle.io_service_bytes", r"Read (\d+)")
        path = self._io / file
        return sum(int(n) for n in re.findall(pattern, path.read_text())) if path.exists() else None

    def _sample_until_left(self) -> None:
        while not self._left.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        key = "anon" if V2 else "total_rss"
        for line in (self._memory / "memory.stat").read_text().splitlines():
            name, value = line.split()
            if name == key:
                self._peak_anonymous_bytes = max(self._peak_anonymous_bytes, int(value))


def block_device(path: Path) -> str:
    """MAJOR:MINOR of the whole disk that holds ``path``: limits are for disks, not for partitions."""
    device = path.stat().st_dev
    node = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if (node / "partition").exists():
        return (node.resolve().parent / "dev").read_text().strip()
    return f"{os.major(device)}:{os.minor(device)}"


def drop_page_cache() -> None:
    """Empty the page cache of the whole host."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def back_memory(nbytes: int | None) -> None:
    """Touch free memory, so that a virtual machine's host has it in place.

    A host takes back what its guest frees, and hands it out again at a tenth of the speed of memory: without this the
    first command after a pause is slow, whichever that is. Another process touches it, and is gone.
    """
    if nbytes:
        subprocess.run([sys.executable, "-c", _TOUCH, str(nbytes)], check=True)


def _remove(folder: Path) -> None:
    for _ in range(50):
        try:
            folder.rmdir()
            return
        except OSError:  # a process is still leaving
            time.sleep(0.1)


def main() -> int:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ram", type=parse_bytes, metavar="SIZE")
    parser.add_argument("--disk", type=parse_bytes, metavar="SIZE", help="bytes read in a second")
    parser.add_argument("--cores", type=int)
    parser.add_argument("--path", type=Path, default=Path(), help="a path on the disk to slow down (default: .)")
    parser.add_argument("--warm", action="store_true", help="keep the page cache")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("no command given")
    with SmallMachine(Limits(args.ram, args.disk, args.cores), args.path, cold=not args.warm) as machine:
        process = machine.popen(command)
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:  # the command has it too, and decides
                continue
        print(json.dumps({**asdict(machine.usage()), "exit_status": status}), file=sys.stderr)
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main())
