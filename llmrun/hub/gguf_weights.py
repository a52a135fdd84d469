"""Tensors of a GGUF file as one bf16 safetensors file, a few megabytes at a time.

Safetensors: 8 bytes with the length of a JSON header, the header, then the bytes of the tensors without gaps
(https://github.com/huggingface/safetensors#format). numpy does the arithmetic; torch is not needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llmrun.errors import CheckpointError
from llmrun.hub.gguf_header import GgufTensor

Floats = npt.NDArray[np.float32]

BF16_BYTES = 2
_BLOCK_ELEMENTS = 1 << 20  # 4 MiB as float32: with the temporaries of numpy some 25 MiB in all
_QUIET_NAN = 0x7FC0


@dataclass(frozen=True)
class Piece:
    """One tensor to be written: what it will be called, where it comes from, what is to be undone."""

    name: str
    tensor: GgufTensor
    minus_one: bool = False
    paired_head_dim: int | None = None  # rows of each head lie in pairs (x0 y0 x1 y1): give them back as halves

    @property
    def nbytes(self) -> int:
        """Bytes in the result."""
        return math.prod(self.tensor.shape) * BF16_BYTES


def can_dequantise(ggml_type: int) -> bool:
    """Whether gguf has the arithmetic of this type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(ggml_type)
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def write_safetensors(source: Path, target: Path, pieces: Sequence[Piece], wrote: Callable[[int], object]) -> None:
    """Write ``pieces`` of the GGUF file ``source`` to ``target`` in their order; ``wrote`` is told the bytes done.

    Raises:
        CheckpointError: ``truncated-gguf``: the file has become shorter.
        OSError: reading or writing failed.
    """
    with source.open("rb", buffering=0) as reader, target.open("xb") as writer:
        writer.write(safetensors_header(pieces))
        for piece in pieces:
            for block in blocks(reader, piece):
                done = to_bf16(block)
                writer.write(done.data)
                wrote(done.nbytes)


def safetensors_header(pieces: Sequence[Piece]) -> bytes:
    """Length and JSON, padded with spaces so that the data begins at a multiple of 8."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for piece in pieces:
        table[piece.name] = {
            "dtype": "BF16",
            "shape": list(piece.tensor.shape),
            "data_offsets": [at, at + piece.nbytes],
        }
        at += piece.nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def blocks(reader: FileIO, piece: Piece) -> Iterator[Floats]:
    """The tensor as float32, block after block of whole rows, ``(rows, columns)``."""
    shape = piece.tensor.shape
    n_rows, n_columns = math.prod(shape[:-1]), shape[-1]
    if piece.paired_head_dim and len(shape) == 1:
        n_rows, n_columns = n_columns, 1  # a bias: one value a row
    # the permutation stays within a head, so blocks are of whole heads
    multiple = piece.paired_head_dim or 1
    step = max(multiple, _BLOCK_ELEMENTS // n_columns // multiple * multiple)
    for start in range(0, n_rows, step):
        rows = min(step, n_rows - start)
        values = _rows(reader, piece.tensor, start, rows, n_rows).reshape(rows, n_columns)
        if piece.minus_one:
            values = values - np.float32(1)
        if piece.paired_head_dim:
            values = _pairs_to_halves(values, piece.paired_head_dim)
        yield values


def read_floats(source: Path, tensor: GgufTensor) -> Floats:
    """A small tensor as float32, flat."""
    with source.open("rb", buffering=0) as reader:
        return np.concatenate([block.ravel() for block in blocks(reader, Piece(tensor.name, tensor))])


def to_bf16(values: Floats) -> npt.NDArray[np.uint16]:
    """The upper halves of float32, rounded to nearest even as torch does it."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    result = (rounded >> np.uint32(16)).astype(np.uint16)
    result[np.isnan(values)] = _QUIET_NAN  # rounding could carry a NaN over into an infinity
    return result


def _rows(reader: FileIO, tensor: GgufTensor, start: int, rows: int, n_rows: int) -> Floats:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.ggml_type)
    row_bytes = tensor.nbytes // n_rows
    raw = np.empty((rows, row_bytes), np.uint8)
    reader.seek(tensor.offset + start * row_bytes)
    _read_into(reader, raw, tensor)
    assert row_bytes % GGML_QUANT_SIZES[kind][1] == 0, "the header has refused a row of broken blocks"
    values: Floats = dequantize(raw, kind)
    return values


def _read_into(reader: FileIO, raw: npt.NDArray[np.uint8], tensor: GgufTensor) -> None:
    view = raw.data.cast("B")
    while view:
        count = reader.readinto(view)
        if not count:
            raise CheckpointError("truncated-gguf", f"the file ends within tensor {tensor.name!r}")
        view = view[count:]


def _pairs_to_halves(values: Floats, head_dim: int) -> Floats:
    heads, columns = values.shape[0] // head_dim, values.shape[1]
    split = values.reshape(heads, head_dim // 2, 2, columns).swapaxes(1, 2)
    return split.reshape(values.shape)
