"""One file of a quantised checkpoint, written a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from llmrun.checkpoint.spec import ModelSpec, TensorSpec
from llmrun.checkpoint.written import Piece, Shard
from llmrun.errors import CheckpointError
from llmrun.formats import weight_format
from llmrun.kernels.reference import dequantise
from llmrun.quantize.rounding import quantise

BYTES_PER_WEIGHT = 12  # of a chunk at work: as read, as float32, its finiteness, the result
LEAST_CHUNK_WEIGHTS = 1 << 20
MOST_CHUNK_WEIGHTS = 1 << 23


Make = Callable[[Piece], Iterator[Tensor]]
"""Makes the bytes of a tensor in its new format: flat uint8, some rows at a time, in memory that it may use again."""


def write_shard(path: Path, shard: Shard, make: Make, wrote: Callable[[int], object]) -> None:
    """Write ``shard`` to ``path``; ``wrote`` is told the bytes done, header aside.

    Raises:
        OSError: writing failed; and what ``make`` raises.
    """
    with path.open("wb") as file:
        file.write(shard.header)
        for piece in shard.pieces:
            for data in make(piece):
                file.write(data.numpy().data)
                wrote(data.numel())


def rounded(spec: ModelSpec, importance: Mapping[str, Tensor], chunk_weights: int) -> Make:
    """Tensors of ``spec``, rounded to their new formats, or kept as they are.

    Memory: ``chunk_weights`` * ``BYTES_PER_WEIGHT`` and what rounding takes. What it gives raises ``CheckpointError``
    (``truncated-shard``, ``not-finite``) and ``OSError``.

    Args:
        importance: of the columns, by the name of the tensor; a tensor without it is rounded with all columns alike.
    """

    def make(piece: Piece) -> Iterator[Tensor]:
        return _converted(spec, piece, importance.get(piece.tensor.name), chunk_weights)

    return make


def _converted(spec: ModelSpec, piece: Piece, importance: Tensor | None, chunk_weights: int) -> Iterator[Tensor]:
    """The bytes of a tensor in its new format, some rows at a time, flat."""
    tensor = piece.tensor
    columns = tensor.shape[-1] if tensor.shape else 1
    plain = weight_format(tensor.dtype)
    step_rows = max(1, chunk_weights // max(columns, 1))
    for data in stored_bytes(spec.path(tensor.file), tensor, max(1, step_rows * columns) * plain.block_bytes):
        if piece.is_kept:
            yield data
            continue
        weights = dequantise(plain, data.reshape(-1, plain.row_bytes(columns)), columns)
        if not weights.isfinite().all():
            raise not_finite(f"{tensor.name!r} in {tensor.file}")
        yield quantise(piece.fmt, weights, importance).flatten()


def not_finite(what: str) -> CheckpointError:
    """The refusal of a tensor that holds more than numbers."""
    return CheckpointError(
        "not-finite",
        f"{what} holds infinities or NaNs, which no scale can stand for",
        hint="fetch the checkpoint again; if it is as it was made, it cannot be quantised",
    )


def stored_bytes(path: Path, tensor: TensorSpec, step_bytes: int) -> Iterator[Tensor]:
    """The bytes of a tensor in the file at ``path`` as uint8, ``step_bytes`` at a time, each in the same memory.

    Raises:
        CheckpointError: ``truncated-shard``.
        OSError: reading failed.
    """
    memory = bytearray(min(step_bytes, tensor.nbytes))
    with path.open("rb", buffering=0) as file:
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
