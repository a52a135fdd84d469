"""The header of a GGUF file: metadata and the table of tensors, every length checked before it is believed.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. gguf's own reader trusts the counts in the file (a
hostile one makes it loop for ever) and builds an object for each token of the vocabulary; this one does neither.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from llmrun.errors import CheckpointError

Value = int | float | bool | str | list[int | float | bool]

_SCALAR = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MAX_DIMS = 4
_MAX_ALIGNMENT = 1 << 20
_KEPT_ARRAY_ITEMS = 1 << 16  # longer arrays belong to the tokenizer, which transformers reads
_SMALLEST_TENSOR_INFO = 8 + 4 + 8 + 4 + 8


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: ``shape`` in the order of torch, ``offset`` from the start of the file."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself. An array of strings is kept as its length."""

    path: Path
    metadata: Mapping[str, Value]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the family: ``llama``, ``qwen2``, ``gemma3``, ..."""
        return str(self.metadata.get("general.architecture", "unknown"))


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Raises:
        CheckpointError: ``gguf-unreadable``, ``not-a-gguf``, ``broken-gguf``, ``truncated-gguf``.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    except OSError as error:
        raise CheckpointError("gguf-unreadable", f"{path}: {error.strerror}") from error
    except ValueError as error:  # mmap of an empty file
        raise CheckpointError("not-a-gguf", f"{path} is empty") from error


def _parse(path: Path, data: mmap.mmap) -> GgufHeader:
    if data[:4] != b"GGUF":
        raise CheckpointError("not-a-gguf", f"{path} does not begin as a GGUF file does")
    cursor = _Cursor(path, data, 4)
    version = cursor.scalar("I")
    if version not in _VERSIONS:
        raise cursor.broken(f"is of version {version}; versions 2 and 3 in little-endian order can be read")
    n_tensors, n_keys = int(cursor.scalar("Q")), int(cursor.scalar("Q"))
    metadata: dict[str, Value] = {}
    for _ in range(n_keys):  # ends early by itself: every key takes bytes that must be there
        key = cursor.string()
        metadata[key] = cursor.value(int(cursor.scalar("I")))
    cursor.expect(n_tensors * _SMALLEST_TENSOR_INFO)
    table = [_tensor_info(cursor) for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.broken(f"asks for an alignment of {alignment}")
    start = -(-cursor.at // alignment) * alignment
    tensors = tuple(_place(cursor, start, *info) for info in table)
    _check_apart(cursor, tensors)
    return GgufHeader(path, metadata, tensors)


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string()
    n_dims = int(cursor.scalar("I"))
    if not 0 < n_dims <= _MAX_DIMS:
        raise cursor.broken(f"gives tensor {name!r} {n_dims} dimensions")
    shape = tuple(int(cursor.scalar("Q")) for _ in range(n_dims))[::-1]
    return name, shape, int(cursor.scalar("I")), int(cursor.scalar("Q"))


def _place(cursor: _Cursor, start: int, name: str, shape: tuple[int, ...], ggml_type: int, offset: int) -> GgufTensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if ggml_type not in set(GGMLQuantizationType):
        raise cursor.broken(f"stores tensor {name!r} in the unknown type {ggml_type}")
    block_elements, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(ggml_type)]
    if math.prod(shape) == 0 or shape[-1] % block_elements:
        raise cursor.broken(f"gives tensor {name!r} the shape {shape}, blocks are of {block_elements}")
    nbytes = math.prod(shape) // block_elements * block_bytes
    end, size = start + offset + nbytes, len(cursor.data)
    if end > size:
        raise CheckpointError(
            "truncated-gguf",
            f"{cursor.path} ends at byte {size:,}, but tensor {name!r} reaches to byte {end:,}",
            hint="copy or download the file again",
        )
    return GgufTensor(name, shape, ggml_type, start + offset, nbytes)


def _check_apart(cursor: _Cursor, tensors: Sequence[GgufTensor]) -> None:
    """No two tensors may share a name or a byte."""
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise cursor.broken("names a tensor twice")
    for before, tensor in pairwise(sorted(tensors, key=lambda tensor: tensor.offset)):
        if tensor.offset < before.offset + before.nbytes:
            raise cursor.broken(f"puts tensor {tensor.name!r} over tensor {before.name!r}")


class _Cursor:
    """A place in the file that never goes past its end."""

    def __init__(self, path: Path, data: mmap.mmap, at: int) -> None:
        self.path, self.data, self.at = path, data, at

    def scalar(self, code: str) -> int | float | bool:
        form = f"<{code}"
        start = self._take(struct.calcsize(form))
        value: int | float | bool = struct.unpack_from(form, self.data, start)[0]
        return value

    def string(self) -> str:
        length = int(self.scalar("Q"))
        start = self._take(length)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.broken(f"has text that is not UTF-8 at byte {start:,}") from error

    def value(self, kind: int) -> Value:
        if kind in _SCALAR:
            return self.scalar(_SCALAR[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(int(self.scalar("I")), int(self.scalar("Q")))
        raise self.broken(f"has metadata of the unknown type {kind}")

    def _array(self, kind: int, count: int) -> Value:
        if kind == _STRING:
            self.expect(count * 8)
            for _ in range(count):
                self._take(int(self.scalar("Q")))
            return count
        if kind not in _SCALAR:
            raise self.broken(f"has an array of the unknown type {kind}")
        form = f"<{count}{_SCALAR[kind]}" if count <= _KEPT_ARRAY_ITEMS else ""
        start = self._take(count * struct.calcsize(f"<{_SCALAR[kind]}"))
        return list(struct.unpack_from(form, self.data, start)) if form else count

    def expect(self, nbytes: int) -> None:
        """Fail unless that many bytes are still there."""
        if nbytes > len(self.data) - self.at:
            raise CheckpointError(
                "truncated-gguf",
                f"{self.path} ends at byte {len(self.data):,}, in the middle of its header",
                hint="copy or download the file again",
            )

    def _take(self, nbytes: int) -> int:
        self.expect(nbytes)
        start = self.at
        self.at += nbytes
        return start

    def broken(self, what: str) -> CheckpointError:
        return CheckpointError("broken-gguf", f"{self.path} {what}", hint="copy or download the file again")
