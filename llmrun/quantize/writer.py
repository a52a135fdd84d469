"""One file of a quantised checkpoint, written a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from llmrun.checkpoint.spec import ModelSpec, TensorSpec
from llmrun.errors import CheckpointError
from llmrun.formats import weight_format
from llmrun.kernels.reference import dequantise
from llmrun.quantize.rounding import quantise
from llmrun.quantize.shards import Piece, Shard

BYTES_PER_WEIGHT = 12  # of a chunk at work: as read, as float32, its finiteness, the result
LEAST_CHUNK_WEIGHTS = 1 << 20
MOST_CHUNK_WEIGHTS = 1 << 23


def write_shard(
    path: Path,
    shard: Shard,
    spec: ModelSpec,
    *,
    importance: Mapping[str, Tensor],
    chunk_weights: int,
    wrote: Callable[[int], object],
) -> None:
    """Write ``shard`` to ``path``; ``wrote`` is told the bytes done, header aside.

    Memory: ``chunk_weights`` * ``BYTES_PER_WEIGHT`` and what rounding takes.

    Args:
        importance: of the columns, by the name of the tensor; a tensor without it is rounded with all columns alike.

    Raises:
        CheckpointError: ``truncated-shard``, ``not-finite``.
        OSError: reading or writing failed.
    """
    with path.open("wb") as file:
        file.write(shard.header)
        for piece in shard.pieces:
            for data in _converted(spec, piece, importance.get(piece.tensor.name), chunk_weights):
                file.write(data.numpy().data)
                wrote(data.numel())


def _converted(spec: ModelSpec, piece: Piece, importance: Tensor | None, chunk_weights: int) -> Iterator[Tensor]:
    """The bytes of a tensor in its new format, some rows at a time, flat."""
    tensor = piece.tensor
    columns = tensor.shape[-1] if tensor.shape else 1
    plain = weight_format(tensor.dtype)
    step_rows = max(1, chunk_weights // max(columns, 1))
    for data in _rows(spec, tensor, max(1, step_rows * columns) * plain.block_bytes):
        if piece.is_kept:
            yield data
            continue
        weights = dequantise(plain, data.reshape(-1, plain.row_bytes(columns)), columns)
        if not weights.isfinite().all():
            raise CheckpointError(
                "not-finite",
                f"{tensor.name!r} in {tensor.file} holds infinities or NaNs, which no scale can stand for",
                hint="fetch the checkpoint again; if it is as it was made, it cannot be quantised",
            )
        yield quantise(piece.fmt, weights, importance).flatten()


def _rows(spec: ModelSpec, tensor: TensorSpec, step_bytes: int) -> Iterator[Tensor]:
    """The bytes of a tensor as uint8, ``step_bytes`` at a time, in memory that the next step uses again."""
    assert prod(tensor.shape) * weight_format(tensor.dtype).block_bytes == tensor.nbytes, "the header was checked"
    memory = bytearray(min(step_bytes, tensor.nbytes))
    with spec.path(tensor.file).open("rb", buffering=0) as file:
        file.seek(tensor.offset)
        for start in range(0, tensor.nbytes, step_bytes):
            view = memoryview(memory)[: tensor.nbytes - start]
            _fill(file.readinto, view, tensor)
            yield torch.frombuffer(view, dtype=torch.uint8)


def _fill(read_into: Callable[[memoryview], int | None], view: memoryview, tensor: TensorSpec) -> None:
    while view:
        count = read_into(view)
        if not count:
            raise CheckpointError(
                "truncated-shard", f"{tensor.file} ended within {tensor.name!r}, {len(view)} bytes early"
            )
        view = view[count:]
