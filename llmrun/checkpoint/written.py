"""The safetensors files of a checkpoint that llmrun writes, described before a weight is read: names, headers, sizes.

A tensor in blocks is U8 of shape (rows, row_bytes); `llmrun.formats` in the header's metadata is a JSON object that
gives the format of each of these. All else is as it was. So the length of every file is known from the start.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from llmrun.checkpoint.packed import FORMATS_KEY
from llmrun.checkpoint.spec import ModelSpec, TensorSpec
from llmrun.formats import WeightFormat
from llmrun.units import MIB

SHARD_BYTES = 512 * MIB  # a file is written anew after an interruption
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Piece:
    """One tensor of the result: where it comes from and what it becomes."""

    tensor: TensorSpec
    fmt: WeightFormat

    @property
    def is_kept(self) -> bool:
        """Whether its bytes are copied as they are."""
        return self.fmt.is_plain

    @property
    def n_weights(self) -> int:
        """Numbers in it."""
        return math.prod(self.tensor.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the result."""
        return self.tensor.nbytes if self.is_kept else self.tensor.shape[0] * self.fmt.row_bytes(self.tensor.shape[1])

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """As the header says it."""
        return self.tensor.shape if self.is_kept else (self.tensor.shape[0], self.fmt.row_bytes(self.tensor.shape[1]))


@dataclass(frozen=True)
class Shard:
    """One file."""

    file: str
    pieces: tuple[Piece, ...]

    @cached_property
    def header(self) -> bytes:
        """Length and JSON, padded with spaces so that the data begins at a multiple of 8."""
        table: dict[str, object] = {"__metadata__": self._metadata()}
        at = 0
        for piece in self.pieces:
            table[piece.tensor.name] = {
                "dtype": piece.fmt.name if piece.is_kept else "U8",
                "shape": list(piece.stored_shape),
                "data_offsets": [at, at + piece.nbytes],
            }
            at += piece.nbytes
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @property
    def nbytes(self) -> int:
        """Length of the file."""
        return len(self.header) + sum(piece.nbytes for piece in self.pieces)

    def _metadata(self) -> dict[str, str]:
        packed = {piece.tensor.name: piece.fmt.name for piece in self.pieces if not piece.is_kept}
        return {"format": "pt"} | ({FORMATS_KEY: json.dumps(packed)} if packed else {})


def shards(spec: ModelSpec, formats: Mapping[str, WeightFormat], shard_bytes: int = SHARD_BYTES) -> tuple[Shard, ...]:
    """The files, each with whole units in the order of a pass, up to ``shard_bytes`` where a unit is not larger."""
    files: list[list[Piece]] = [[]]
    filled_bytes = 0
    for unit in spec.units:
        pieces = [Piece(tensor, formats[tensor.name]) for tensor in unit.tensors]
        nbytes = sum(piece.nbytes for piece in pieces)
        if files[-1] and filled_bytes + nbytes > shard_bytes:
            files.append([])
            filled_bytes = 0
        files[-1] += pieces
        filled_bytes += nbytes
    return tuple(Shard(_file(number, len(files)), tuple(pieces)) for number, pieces in enumerate(files, 1))


def laid_out(spec: ModelSpec, formats: Mapping[str, WeightFormat], folder: str) -> ModelSpec:
    """``spec`` with its tensors where they will be once these files are written, as ``read_spec`` will say it."""
    placed: dict[str, TensorSpec] = {}
    for shard in shards(spec, formats):
        at = len(shard.header)
        for piece in shard.pieces:
            placed[piece.tensor.name] = replace(piece.tensor, file=shard.file, offset=at)
            at += piece.nbytes
    units = tuple(replace(unit, tensors=tuple(placed[t.name] for t in unit.tensors)) for unit in spec.units)
    return replace(spec, folder=folder, units=units, embedding=placed[spec.embedding.name])


def index(files: Sequence[Shard]) -> dict[str, object]:
    """The contents of the index file: which tensor is in which file."""
    return {
        "metadata": {"total_size": sum(piece.nbytes for shard in files for piece in shard.pieces)},
        "weight_map": {piece.tensor.name: shard.file for shard in files for piece in shard.pieces},
    }


def _file(number: int, count: int) -> str:
    return WEIGHTS if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
