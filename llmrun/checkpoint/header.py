"""The header of a safetensors file, read with suspicion.

A file is eight bytes of header length (little endian), the header (JSON: name -> dtype, shape, offsets into what
follows), and the data. Nothing is allocated from a number that has not been checked against the length of the file.
Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

from llmrun.checkpoint.files import Files
from llmrun.checkpoint.packed import FORMATS_KEY, as_packed
from llmrun.checkpoint.spec import TensorSpec
from llmrun.checkpoint.strict_json import is_counts, parse_object
from llmrun.errors import CheckpointError
from llmrun.units import KIB, format_bytes

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
FIRST_BYTES = 16 * KIB  # holds the whole header of most shards: one request where a server is asked
MAX_RANK = 16

# bits of one element; F4 and F6 pack several into a byte
_DTYPE_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32}
_DTYPE_BITS |= {"F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_DTYPE_BITS |= dict.fromkeys(("F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)


def read_header(files: Files, file: str) -> tuple[TensorSpec, ...]:
    """The tensors of the shard ``file``, in the order in which they lie in it.

    Matrices in llmrun's own packed formats come as what they are, ``(rows, columns)`` of weights.

    Raises:
        CheckpointError: ``truncated-shard``, ``missing-shard``, ``broken-header``, ``unreadable``,
            ``unsupported-format``.
    """
    file_bytes = files.nbytes(file)
    start = files.read(file, 0, min(FIRST_BYTES, file_bytes))
    data_start = 8 + _header_length(start[:8], file, file_bytes)
    data = start[:data_start]
    if len(data) < data_start:
        data += files.read(file, len(data), data_start - len(data))
    if len(data) < data_start:
        raise CheckpointError(
            "truncated-shard", f"{file} ended {data_start - len(data):,} bytes before the end of its header"
        )
    entries = parse_object(data[8:], name=file, reference="broken-header")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _broken(file, "its __metadata__ is not an object")
    tensors = [_tensor(file, name, entry, data_start) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    _check_contiguous(tensors, file, data_start, file_bytes)
    return as_packed(tensors, metadata[FORMATS_KEY], file) if FORMATS_KEY in metadata else tuple(tensors)


def _header_length(prefix: bytes, file: str, file_bytes: int) -> int:
    if len(prefix) < 8:
        raise CheckpointError("truncated-shard", f"{file} is {file_bytes} bytes long, too short for a header")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise _broken(file, f"it claims a header of {length:,} bytes, more than the {MAX_HEADER_BYTES:,} allowed")
    if length > file_bytes - 8:
        raise _broken(file, f"it claims a header of {length:,} bytes but is {file_bytes:,} bytes long")
    return length


def _tensor(file: str, name: str, entry: object, data_start: int) -> TensorSpec:
    if not isinstance(entry, dict):
        raise _broken(file, f"the entry of {name!r} is not an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _DTYPE_BITS:
        raise _broken(file, f"{name!r} has the unknown dtype {dtype!r:.40}")
    if not is_counts(shape) or len(shape) > MAX_RANK:
        raise _broken(file, f"{name!r} has the impossible shape {shape!r:.80}")
    if not is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(file, f"{name!r} has the impossible offsets {offsets!r:.80}")
    nbytes = offsets[1] - offsets[0]
    bits = _DTYPE_BITS[dtype]
    for extent in shape:
        bits *= extent
    if bits != nbytes * 8:
        raise _broken(file, f"{name!r} is {dtype} {shape} = {bits // 8:,} bytes, but its offsets span {nbytes:,}")
    return TensorSpec(name, file, data_start + offsets[0], nbytes, dtype, tuple(shape))


def _check_contiguous(tensors: list[TensorSpec], file: str, data_start: int, file_bytes: int) -> None:
    """The data must have neither overlaps nor holes and end with the file, as the safetensors library demands."""
    end = data_start
    for tensor in tensors:
        if tensor.offset != end:
            what = "overlaps the tensor before it" if tensor.offset < end else "leaves a hole before it"
            raise _broken(file, f"{tensor.name!r} at byte {tensor.offset:,} {what} (which ends at {end:,})")
        end += tensor.nbytes
    if end > file_bytes:
        raise CheckpointError(
            "truncated-shard",
            f"{file} is {file_bytes:,} bytes long but its header says {end:,}: "
            f"{format_bytes(end - file_bytes)} are missing",
            hint="the download was cut short: fetch this file again",
        )
    if end < file_bytes:
        raise _broken(file, f"{file_bytes - end:,} bytes follow the last tensor")


def _broken(file: str, what: str) -> CheckpointError:
    return CheckpointError("broken-header", f"{file}: {what}", hint="the file is damaged: fetch it again")
