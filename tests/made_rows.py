"""Benchmark rows made by hand, ``made_row(n_gen=64, cache_state="cold")``, and what is written of rows."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from llmrun.bench.formats import writer
from llmrun.bench.row import Row
from llmrun.units import GIB, MIB

PLAIN: dict[str, Any] = {
    "model_filename": "/models/SmolLM2-135M",
    "model_type": "llama 135M BF16",
    "model_size": 269_030_016,
    "model_n_params": 134_515_008,
    "cpu_info": "AMD Ryzen 9 7950X",
    "gpu_info": "",
    "n_threads": 16,
    "n_ctx": 4096,
    "n_prompt": 0,
    "n_gen": 128,
    "n_depth": 0,
    "test_time": "2026-03-01T12:00:00Z",
    "samples_ns": (2_000_000_000, 2_040_000_000, 1_960_000_000),
    "ttft_ms": 340.0,
    "tpot_ms": 15.6,
    "itl_ms": 15.4,
    "itl_p99_ms": 19.75,
    "ceiling_ts": 80.5,
    "mbu": 0.795,
    "predicted_ts": 66.25,
    "disk_bytes_per_token": 0.0,
    "stall_share": 0.125,
    "ram_peak_bytes": 900 * MIB,
    "ram_budget_bytes": 4 * GIB,
    "vram_peak_bytes": None,
    "vram_budget_bytes": None,
    "cache_state": "warm",
    "plan_id": "5f2a90c1",
    "planner": "aco",
    "seed": 0,
    "llmrun_version": "0.1.0",
    "sweep": None,
    "tokens_per_pass": None,
    "draft_acceptance": None,
}


def made_row(rates_ts: Sequence[float] | None = None, **changes: Any) -> Row:
    """64 tok/s of a small model in RAM; ``rates_ts`` gives the samples as tokens a second."""
    values = PLAIN | changes
    if rates_ts is not None:
        n_tokens = values["n_prompt"] + values["n_gen"]
        values["samples_ns"] = tuple(round(n_tokens * 1e9 / rate) for rate in rates_ts)
    return Row(**values)


def write_rows(kind: str, rows: Iterable[Row], stream: TextIO) -> None:
    out = writer(kind, stream)
    out.begin()
    for row in rows:
        out.row(row)
    out.end()


def text_of(kind: str, rows: Iterable[Row]) -> str:
    """All that the writer of a format writes of the rows where nobody looks on."""
    stream = io.StringIO()
    write_rows(kind, rows, stream)
    return stream.getvalue()
