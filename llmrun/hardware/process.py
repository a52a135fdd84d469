"""What this process takes, cheaply enough to ask ten times a second."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from llmrun.units import KIB

_STATUS = Path("/proc/self/status")
_IO = Path("/proc/self/io")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of this process: resident now, resident at its peak, and the part of it that no file backs."""

    rss_bytes: int
    peak_rss_bytes: int
    anonymous_bytes: int


def process_memory(status: Path = _STATUS) -> ProcessMemory:
    """Memory of this process now; where the host has no ``/proc``, the resident memory stands for the anonymous."""
    try:
        return parse_status(status.read_text())
    except (OSError, KeyError):
        return _portable()


def reset_peak(clear_refs: Path = _CLEAR_REFS) -> bool:
    """Let the peak begin anew from what is resident now; False where the host cannot."""
    try:
        clear_refs.write_text("5")
    except OSError:
        return False
    return True


def parse_status(text: str) -> ProcessMemory:
    """The figures in the text of ``/proc/self/status``.

    Raises:
        KeyError: one of them is not there.
    """
    values: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "VmHWM", "RssAnon"):
            values[name] = int(rest.split()[0]) * KIB
    return ProcessMemory(values["VmRSS"], values["VmHWM"], values["RssAnon"])


def _portable() -> ProcessMemory:
    import psutil

    memory = psutil.Process().memory_info()
    peak = max(memory.rss, getattr(memory, "peak_wset", 0), _peak_from_rusage())
    return ProcessMemory(memory.rss, peak, memory.rss)


def _peak_from_rusage() -> int:
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB


def process_io(io: Path = _IO) -> int | None:
    """Bytes that this process has caused to be read from storage, ``None`` where the host does not count them."""
    try:
        text = io.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "read_bytes":
            return int(value)
    return None
