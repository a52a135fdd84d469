"""What quantising takes, so that ``--ram`` can be kept."""

from __future__ import annotations

import torch

from llmrun.errors import PlanError, Row
from llmrun.quantize.writer import BYTES_PER_WEIGHT, LEAST_CHUNK_WEIGHTS, MOST_CHUNK_WEIGHTS
from llmrun.units import MIB, format_bytes

ROUNDING_BYTES_PER_THREAD = 24 * MIB  # the buffers of a chunk's search, as measured


def chunk_weights(ram_bytes: int, taken_bytes: int, calibration_bytes: int = 0, held_bytes: int = 0) -> int:
    """Weights that may be worked on at once within ``ram_bytes``, of which the process has taken some already.

    Args:
        calibration_bytes: what running the model over a text takes, before any rounding; 0 where it is not run.
        held_bytes: what is held of a matrix while it is worked on.

    Raises:
        PlanError: ``quantize-over-budget``.
    """
    rounding_bytes = torch.get_num_threads() * ROUNDING_BYTES_PER_THREAD + held_bytes
    least_bytes = max(rounding_bytes + LEAST_CHUNK_WEIGHTS * BYTES_PER_WEIGHT, calibration_bytes)
    if taken_bytes + least_bytes > ram_bytes:
        raise _over_budget(ram_bytes, taken_bytes, least_bytes, is_calibration=least_bytes == calibration_bytes)
    weights = (ram_bytes - taken_bytes - rounding_bytes) // BYTES_PER_WEIGHT
    return min(weights, MOST_CHUNK_WEIGHTS)


def _over_budget(ram_bytes: int, taken_bytes: int, least_bytes: int, *, is_calibration: bool) -> PlanError:
    needed_bytes = taken_bytes + least_bytes
    without = ", or leave out `--calibrate`" if is_calibration else ""
    return PlanError(
        "quantize-over-budget",
        f"writing weights does not fit into {format_bytes(ram_bytes)}",
        rows=(
            Row("process", format_bytes(taken_bytes), "taken before the first weight"),
            Row("calibration" if is_calibration else "rounding", format_bytes(least_bytes), "at least"),
            Row("total", format_bytes(needed_bytes), f"short by {format_bytes(needed_bytes - ram_bytes)}"),
        ),
        hint=f"`--ram {-(-needed_bytes // MIB)}MiB` is enough{without}",
    )
