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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrun.errors import LlmrunError
from llmrun.hardware.heap import keep_heap
from llmrun.hardware.process import process_io
from llmrun.hardware.speeds import CPU, OwnLayers
from llmrun.hardware.target import POOL_BYTES
from llmrun.units import MIB

COLD_BYTES = 16 * MIB
"""More than this read from disk during the imports: they were not in the page cache."""

USED_SHARE = 0.9
"""Of the time: the last stages overrun theirs a little."""

LEAST_S, MOST_S = 0.5, 5.0
"""For a device, even where the imports took all the time there was; and where there is more than is of use."""

LEAST_REST = 0.45
"""The figures get at least this share of the time, 4.5 of 10 s: imports that take long prolong it."""

OWN_SHARE, OWN_POOLS = 0.5, 4
"""Of what is left after the imports, for sampling the checkpoint's own layers; and times the pool, their weights."""


@dataclass(frozen=True)
class Request:
    """What to measure, and in which time.

    Attributes:
        folder: the checkpoint's, whose tokenizer and model are loaded as a run loads them.
        files: to read while computing.
        devices: the CPU first, then "gpu:0" and so on.
        limit_s: for all of measuring.
        left_s: of it when this process begins.
        pool_bytes: memory to work in, on each device.
        own: the checkpoint's own layers, in each way that they are to be measured; what is found of the first comes
            as ``own.0...``.
    """

    folder: str
    files: tuple[str, ...]
    devices: tuple[str, ...]
    limit_s: float
    left_s: float
    pool_bytes: int = POOL_BYTES
    own: tuple[OwnLayers, ...] = ()

    def end_s(self, ready_s: float) -> float:
        """Seconds of this process after which it has to end, if its imports take so long."""
        return max(self.left_s, ready_s + LEAST_REST * self.limit_s)


def main() -> None:
    """Answer the request on standard input."""
    began_s = time.perf_counter()
    fields = json.load(sys.stdin)
    ways = tuple(OwnLayers(**each) for each in fields.pop("own"))
    request = Request(**(fields | {name: tuple(fields[name]) for name in ("files", "devices")}), own=ways)
    start_s, start_bytes = start_up(Path(request.folder))
    emit("start", start_s)
    emit("start_bytes", start_bytes)
    import_measured()
    ready_s = time.perf_counter() - began_s
    emit("ready", ready_s)
    left_s = request.end_s(ready_s) - ready_s
    end_s = time.perf_counter() + left_s
    measure_parts(request, (1 - OWN_SHARE) * left_s if request.own else left_s)
    for index, own in enumerate(request.own):  # after what every plan needs: large layers take as long as they take
        share = USED_SHARE / (len(request.own) - index)
        measure_own(request, own, f"own.{index}", share * (end_s - time.perf_counter()))


def emit(part: str, value: Any) -> None:  # noqa: ANN401
    """Tell one figure at once, by its path: ``cpu.weights.BF16.512``. Several may come as ``note``."""
    print(json.dumps({"part": part, "value": value}), flush=True)  # noqa: T201 - this is what the process is for


def start_up(folder: Path) -> tuple[float, int]:
    """(seconds, bytes read from disk) to a model that could compute: the imports, its tokenizer, its skeleton.

    Notes what was odd.
    """
    read_before = process_io() or 0
    keep_heap()
    gc.disable()  # as the engine does while it starts
    began_s = time.perf_counter()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        if (folder / "config.json").exists():  # else it is one of many checkpoints, to measure the disk
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            with torch.device("meta"):
                AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
            AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever transformers raises: the run itself tells of it
        emit("note", f"start: the model could not be built while measuring ({_first_line(error)}); without it")
    took_s = time.perf_counter() - began_s
    gc.enable()
    read_bytes = (process_io() or 0) - read_before
    if read_bytes > COLD_BYTES:
        emit("note", "start: torch came from the disk, not from the page cache; later starts are faster")
    return took_s, read_bytes


def import_measured() -> None:
    """What is measured besides a model's own code: from the disk it takes seconds, which are not those of a figure."""
    from transformers import LlamaForCausalLM  # noqa: F401


def measure_own(request: Request, own: OwnLayers, path: str, limit_s: float) -> None:
    """Emit what the checkpoint's own layers take; where they cannot be built, the run itself tells of it."""
    import torch

    from llmrun.hardware.measure_own import own_layers, own_rounding

    try:
        with torch.inference_mode():
            folder, formats, most_bytes = Path(request.folder), dict(own.formats), OWN_POOLS * request.pool_bytes
            if own.rounded and (rounding_s := own_rounding(folder, formats)):
                emit(f"{path}.rounding_s", rounding_s)
            for name, figure in own_layers(folder, formats, limit_s, most_bytes, fine=own.fine):
                emit(f"{path}.{name}", figure)
    except Exception as error:  # whatever transformers raises
        emit("note", f"the model's own layers were not measured ({_first_line(error)})")


def measure_parts(request: Request, left_s: float) -> None:
    """Emit the figures of one device after the other."""
    import torch

    deadline_s = time.perf_counter() + USED_SHARE * left_s
    with torch.inference_mode():
        for index, device in enumerate(request.devices):
            each_s = (deadline_s - time.perf_counter()) / (len(request.devices) - index)
            _measure_one(request, device, min(MOST_S, max(LEAST_S, each_s)))


def _measure_one(request: Request, device: str, limit_s: float) -> None:
    """A GPU that fails is told as such, and what comes of it is not used."""
    from llmrun.hardware.measure_device import cpu_stages, gpu_stages, run_stages
    from llmrun.hardware.target import cpu_target, cuda_target

    def tell(name: str, figure: Any) -> None:  # noqa: ANN401
        emit(f"{device}.{name}", figure)

    began_s = time.perf_counter()
    try:
        if device == CPU:
            files = [Path(file) for file in request.files]
            stages = cpu_stages(cpu_target(request.pool_bytes), files, brief=bool(request.own))
        else:
            stages = gpu_stages(cuda_target(int(device.removeprefix("gpu:"))))
        run_stages(stages, limit_s - (time.perf_counter() - began_s), tell)
    except (RuntimeError, AssertionError, LlmrunError) as error:  # CUDA's, and torch's where it has no CUDA
        tell("failed", _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    main()
