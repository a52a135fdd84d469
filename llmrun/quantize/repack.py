"""A checkpoint that others quantised to integers, made one that can be multiplied by as it lies: the same integers.

What others lay into int32, for the kernels of a GPU, becomes ggml's blocks in llmrun's own layout. Nothing is rounded
but scales, where they were wider than fp16, and minima (see ``layouts.blocks``); nothing is searched for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from llmrun.checkpoint.config import read_config
from llmrun.checkpoint.files import LocalFiles
from llmrun.checkpoint.integers import Matrix, Source, broken_quantized, read_source
from llmrun.checkpoint.quantised import scheme_in
from llmrun.checkpoint.spec import ModelSpec, TensorSpec
from llmrun.checkpoint.written import SHARD_BYTES, Piece, shards
from llmrun.formats import weight_format
from llmrun.hub.store import Record
from llmrun.kernels.reference import PLAIN_DTYPES
from llmrun.quantize.job import Job, Prepare, made_from
from llmrun.quantize.layouts import Unpacked, unpacker
from llmrun.quantize.layouts.blocks import encode
from llmrun.quantize.layouts.unpacked import ROWS_TOGETHER
from llmrun.quantize.writer import Make, not_finite, stored_bytes

_DTYPES = PLAIN_DTYPES | {"U8": torch.uint8, "I8": torch.int8, "I32": torch.int32, "I64": torch.int64}


def source_of(folder: Path, *, trust_remote_code: bool = False) -> Source:
    """The tensors of the checkpoint in ``folder``, which others have quantised to integers.

    Raises:
        CheckpointError: as ``read_spec``.
    """
    files = LocalFiles(folder)
    config = read_config(files, trust_remote_code=trust_remote_code)
    scheme = scheme_in(config.raw)
    assert scheme, "read_spec would have made a model of it that runs"
    return read_source(files, config, scheme)


def repack_job(
    folder: Path,
    source: Source,
    spec: ModelSpec,
    target: Path,
    record: Record | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Job:
    """The job that makes ``target`` of ``source`` in ``folder``; ``spec`` is what ``read_spec`` says it becomes."""
    formats = {tensor.name: weight_format(tensor.dtype) for unit in spec.units for tensor in unit.tensors}
    files = shards(spec, formats, shard_bytes)
    weights = {tensor.file for tensor in (*source.kept.values(), *(m.integers for m in source.matrices.values()))}
    return Job(folder, files, target, str(source.scheme.layout), made_from(folder, weights, files), record)


def held_bytes(source: Source) -> int:
    """Memory for the parts of the largest matrix, which are read whole, beside what is unpacked of them at a time."""
    return max(2 * matrix.source_bytes - matrix.integers.nbytes for matrix in source.matrices.values())


def repacking(folder: Path, source: Source, chunk_weights: int) -> Prepare:
    """How the tensors of a ``repack_job`` are made, with ``chunk_weights`` weights unpacked at once.

    What is made of a tensor raises ``CheckpointError`` (``truncated-shard``, ``not-finite``, ``broken-quantized``) and
    ``OSError``.
    """

    def make(piece: Piece) -> Iterator[Tensor]:
        name = piece.tensor.name
        if kept := source.kept.get(name):
            return stored_bytes(folder / kept.file, kept, chunk_weights)
        return _repacked(folder, source.matrices[name], chunk_weights)

    def prepare(partial: Path) -> Make:
        return make

    return prepare


def _repacked(folder: Path, matrix: Matrix, chunk_weights: int) -> Iterator[Tensor]:
    """The bytes of a matrix in the format that it becomes, some rows at a time."""
    parts = {"integers": matrix.integers, "scales": matrix.scales} | ({"zeros": matrix.zeros} if matrix.zeros else {})
    rows = unpacker(matrix, {name: _load(folder, part) for name, part in parts.items()})
    groups = (
        _load(folder, matrix.order).long() if matrix.order else torch.arange(matrix.columns) // matrix.group_columns
    )
    step = max(1, chunk_weights // matrix.columns // ROWS_TOGETHER) * ROWS_TOGETHER
    for start in range(0, matrix.rows, step):
        unpacked = rows(slice(start, min(start + step, matrix.rows)))
        _check_numbers(matrix, unpacked)
        yield encode(matrix.becomes, unpacked, groups)


def _check_numbers(matrix: Matrix, rows: Unpacked) -> None:
    if not rows.scales.half().isfinite().all():
        raise not_finite(f"{matrix.scales.name!r} in {matrix.scales.file}, as fp16,")
    if matrix.scheme.symmetric and not (rows.zeros == matrix.scheme.middle).all():
        said = f"config.json says that {matrix.scheme.layout} is symmetric here"
        raise broken_quantized(f"{said}, but {matrix.zeros and matrix.zeros.name!r:.120} holds other zeros")


def _load(folder: Path, tensor: TensorSpec) -> Tensor:
    data = next(stored_bytes(folder / tensor.file, tensor, tensor.nbytes))
    return data.view(_DTYPES[tensor.dtype]).reshape(tensor.shape)
