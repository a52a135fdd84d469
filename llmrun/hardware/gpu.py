"""NVIDIA GPUs, from the driver's management library (NVML); no CUDA context is made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from llmrun.hardware.profile import Gpu


def find_gpus(environment: Mapping[str, str] = os.environ) -> tuple[tuple[Gpu, ...], str | None]:
    """The GPUs that this process may use, and a note where there is something to say."""
    try:
        import pynvml
    except ImportError:
        return (), "no GPU: the package nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), f"no GPU: {error}"
    try:
        return _visible(pynvml, environment.get("CUDA_VISIBLE_DEVICES"))
    except pynvml.NVMLError as error:
        return (), f"no GPU: NVML failed: {error}"
    finally:
        pynvml.nvmlShutdown()


def _visible(nvml: Any, wanted: str | None) -> tuple[tuple[Gpu, ...], str | None]:  # noqa: ANN401 a module
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    chosen = select(uuids, wanted)
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    gpus = []
    for position, index in enumerate(chosen):
        memory = nvml.nvmlDeviceGetMemoryInfo(handles[index])
        name = _text(nvml.nvmlDeviceGetName(handles[index]))
        gpus.append(Gpu(f"gpu:{position}", name, uuids[index], int(memory.total), int(memory.free), driver))
    hidden = len(handles) - len(gpus)
    return tuple(gpus), f"CUDA_VISIBLE_DEVICES hides {hidden} of {len(handles)} GPUs" if hidden else None


def select(uuids: list[str], wanted: str | None) -> list[int]:
    """Indexes of the GPUs that ``CUDA_VISIBLE_DEVICES`` shows, in its order; as in CUDA, a bad entry ends the list."""
    if wanted is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in (part.strip() for part in wanted.split(",")):
        if entry.isdigit():
            matches = [int(entry)] if int(entry) < len(uuids) else []
        else:
            matches = [index for index, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
        if len(matches) != 1 or matches[0] in chosen:
            break
        chosen += matches
    return chosen


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
