"""Packed matrices in safetensors, llmrun's own layout: bytes, and a header that says what they are.

The header's ``__metadata__`` has the key ``llmrun.formats``, whose text is a JSON object: name of a tensor -> name of
a format in ``llmrun.formats``. Such a tensor is U8 of shape ``(rows, row_bytes)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmrun.checkpoint.spec import TensorSpec
from llmrun.checkpoint.strict_json import parse_object
from llmrun.errors import CheckpointError
from llmrun.formats import FORMATS
from llmrun.units import MIB, format_bytes

FORMATS_KEY = "llmrun.formats"
MAX_FORMATS_BYTES = 16 * MIB


def as_packed(tensors: Sequence[TensorSpec], said: object, file: str) -> tuple[TensorSpec, ...]:
    """``tensors`` of the shard ``file``, those that ``said`` (what stands under ``FORMATS_KEY``) names in their format.

    Raises:
        CheckpointError: ``broken-header``; ``unsupported-format``: a format of a newer llmrun.
    """
    if not isinstance(said, str):
        raise _broken(file, f"its {FORMATS_KEY} is not a text")
    if len(said) > MAX_FORMATS_BYTES:
        raise _broken(file, f"its {FORMATS_KEY} is longer than {format_bytes(MAX_FORMATS_BYTES)}")
    text = said.encode("utf-8", "surrogatepass")  # half a character is told as broken JSON is
    formats = parse_object(text, name=f"{file}, {FORMATS_KEY}", reference="broken-header")
    absent = formats.keys() - {tensor.name for tensor in tensors}
    if absent:
        raise _broken(file, f"its {FORMATS_KEY} names {min(absent)!r:.120}, which it does not hold")
    return tuple(_packed(tensor, formats[tensor.name]) if tensor.name in formats else tensor for tensor in tensors)


def _packed(tensor: TensorSpec, name: object) -> TensorSpec:
    weights = FORMATS.get(name) if isinstance(name, str) else None
    if weights is None or weights.is_plain:
        raise CheckpointError(
            "unsupported-format",
            f"{tensor.file}: {tensor.name!r:.120} is packed as {name!r:.40}, which this llmrun does not know",
            hint=f"it knows {', '.join(known.name for known in FORMATS.values() if not known.is_plain)}",
        )
    if tensor.dtype != "U8" or len(tensor.shape) != 2:
        raise _broken(
            tensor.file, f"{tensor.name!r:.120} is {tensor.dtype} {tensor.shape}, {name} needs U8 (rows, bytes)"
        )
    rows, row_bytes = tensor.shape
    if not rows or not row_bytes or row_bytes % weights.block_bytes:
        what = f"{rows:,} rows of {row_bytes:,} bytes, and a block of {name} has {weights.block_bytes}"
        raise _broken(tensor.file, f"{tensor.name!r:.120} has {what}")
    columns = row_bytes // weights.block_bytes * weights.block_weights
    return replace(tensor, dtype=weights.name, shape=(rows, columns))


def _broken(file: str, what: str) -> CheckpointError:
    return CheckpointError("broken-header", f"{file}: {what}", hint="the file is damaged: make or fetch it again")
