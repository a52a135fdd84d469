"""What libraries read from the environment before they begin: the C library's heap, torch's threads, warnings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

TUNABLES: Final = "GLIBC_TUNABLES"
_CACHED_PIECES: Final = "glibc.malloc.tcache_count"

_LIBRARIES: Final = {
    "TRANSFORMERS_VERBOSITY": "error",  # its warnings say again, at length, what our errors say
    "OMP_WAIT_POLICY": "PASSIVE",  # torch's threads, awake between operators, would keep the cores from the kernels
}


def for_models(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` as a process that runs a model is to have it; what is set there already stays.

    Beside what its libraries read, glibc keeps no small pieces by for each thread: to align a tensor it cuts up to 96
    bytes off the piece that it takes, and where these are kept, the piece is not found again for another tensor of its
    own size, so that each layer of a prefill adds its activations to the heap.
    """
    tunables = environment.get(TUNABLES, "")
    if _CACHED_PIECES not in tunables:
        tunables = f"{tunables}:{_CACHED_PIECES}=0".removeprefix(":")
    return {**_LIBRARIES, **environment, TUNABLES: tunables}


def begin_again_for_models() -> None:
    """Set all of that for this process; where the C library has begun without it, start the same command anew."""
    wanted = for_models(os.environ)
    changed = sys.platform == "linux" and wanted[TUNABLES] != os.environ.get(TUNABLES)
    os.environ.update(wanted)
    if changed and sys.executable:
        with suppress(OSError):  # more memory is taken, nothing else
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
