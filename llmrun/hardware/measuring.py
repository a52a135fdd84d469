"""The process that measures what needs torch: ``python -m llmrun.hardware.measuring``.

A process of its own, so that the one that runs a model does not keep the memory that measuring takes, and so that the
start is measured as it will be: from an interpreter that has not imported torch. A request comes on standard input;
one JSON object a line goes out as soon as it is known, so that what was found counts even if the time runs out.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llmrun.errors import LlmrunError
from llmrun.hardware.process import process_io
from llmrun.hardware.target import POOL_BYTES
from llmrun.units import MIB

COLD_BYTES = 16 * MIB
"""More than this read from disk during the imports: they were not in the page cache."""

CPU_SHARE, SLOWDOWN_SHARE, GPU_SHARE = 0.7, 0.08, 0.78
"""Of a device's part of the time: what is asked for is overrun a little wherever one call takes long."""

LEAST_S, MOST_S = 0.5, 5.0
"""For a device, even where the imports took all the time there was; and where there is more than is of use."""


@dataclass(frozen=True)
class Request:
    """What to measure, and in which time."""

    folder: str  # the checkpoint's, whose tokenizer and model are loaded as a run loads them
    files: tuple[str, ...]  # to read while computing
    cpu: str  # its name
    gpus: tuple[tuple[str, str], ...]  # ("gpu:0", name)
    limit_s: float
    pool_bytes: int = POOL_BYTES


def main() -> None:
    """Answer the request on standard input."""
    began_s = time.perf_counter()
    fields = json.load(sys.stdin)
    request = Request(**(fields | {"gpus": tuple(map(tuple, fields["gpus"])), "files": tuple(fields["files"])}))
    emit("start", start_seconds(Path(request.folder)))
    measure_parts(request, request.limit_s - (time.perf_counter() - began_s))


def emit(part: str, value: Any) -> None:  # noqa: ANN401
    """Tell one result, at once."""
    print(json.dumps({"part": part, "value": value}), flush=True)  # noqa: T201 - this is what the process is for


def start_seconds(folder: Path) -> float:
    """From here to a model that could compute: the imports, its tokenizer, its skeleton. Notes what was odd."""
    read_before = process_io() or 0
    gc.disable()  # as the engine does while it starts
    began_s = time.perf_counter()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(folder, local_files_only=True)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    except Exception as error:  # whatever transformers raises: the run itself tells of it
        emit("note", f"start: the model could not be built while measuring ({_first_line(error)}); without it")
    took_s = time.perf_counter() - began_s
    gc.enable()
    if (process_io() or 0) - read_before > COLD_BYTES:
        emit("note", "start: torch came from the disk, not from the page cache; later starts are faster")
    return took_s


def measure_parts(request: Request, left_s: float) -> None:
    """Emit the figures of the CPU and of each GPU; a device that fails is noted and left out."""
    import torch

    from llmrun.hardware.measure_device import measure_cpu, reading_slowdown
    from llmrun.hardware.target import cpu_target

    each_s = min(MOST_S, max(LEAST_S, left_s / (1 + len(request.gpus))))
    with torch.inference_mode():
        target = cpu_target(request.pool_bytes)
        cpu = measure_cpu(target, request.cpu, CPU_SHARE * each_s)
        emit("device", asdict(cpu.device))
        emit("token", cpu.token_s)
        if request.files:
            try:
                files = [Path(file) for file in request.files]
                emit("slowdown", reading_slowdown(target, files, SLOWDOWN_SHARE * each_s))
            except LlmrunError as error:
                emit("note", f"reading beside computing: {error.message}")
        for device, name in request.gpus:
            _emit_gpu(device, name, each_s)


def _emit_gpu(device: str, name: str, limit_s: float) -> None:
    from llmrun.hardware.measure_device import measure_device, measure_link
    from llmrun.hardware.target import cuda_target

    began_s = time.perf_counter()
    try:
        target = cuda_target(int(device.removeprefix("gpu:")))
        left_s = max(
            LEAST_S, GPU_SHARE * limit_s - (time.perf_counter() - began_s)
        )  # the context takes a second or more
        computed = measure_device(target, device, name, 0.7 * left_s)
        link = measure_link(target, pinned=True, limit_s=0.3 * left_s)
    except (RuntimeError, AssertionError, LlmrunError) as error:  # CUDA's, and torch's where it has no CUDA
        emit("note", f"{device} ({name}) could not be measured and is left out: {_first_line(error)}")
    else:
        emit("device", asdict(replace(computed.device, link=link)))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    main()
