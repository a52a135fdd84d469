"""The tensors of a GGUF file under transformers' names: where each lies, how it is packed, what is to be undone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from llmrun.checkpoint import TensorSpec
from llmrun.errors import CheckpointError
from llmrun.formats import FORMATS, NOT_GGMLS
from llmrun.hub.gguf_family import ROPE_TENSORS, Family, hf_name
from llmrun.hub.gguf_header import GgufHeader, GgufTensor

_BY_NUMBER = {each.number: each for each in FORMATS.values() if each.number < NOT_GGMLS}


def tensors_of(header: GgufHeader, family: Family, head_dim: int, file: str) -> tuple[TensorSpec, ...]:
    """Every weight in the file, as it lies there; ``file`` is how the specs name it.

    Raises:
        CheckpointError: ``gguf-unsupported``: a tensor or a type that cannot be used.
    """
    _check_types(header)
    return tuple(
        _spec(header, family, head_dim, file, tensor) for tensor in header.tensors if tensor.name not in ROPE_TENSORS
    )


def rope_factors(header: GgufHeader) -> Mapping[str, Sequence[float]]:
    """The frequency factors of the rotary positions, by the names of their tensors.

    Raises:
        CheckpointError: ``gguf-unsupported``: they are not F32, as llama.cpp writes them.
        OSError: reading failed.
    """
    return {tensor.name: _floats(header, tensor) for tensor in header.tensors if tensor.name in ROPE_TENSORS}


def _spec(header: GgufHeader, family: Family, head_dim: int, file: str, tensor: GgufTensor) -> TensorSpec:
    name = hf_name(family, tensor.name)
    if name is None:
        raise _refused(header, f"has a tensor {tensor.name!r} that {family.architecture} does not")
    weights = _BY_NUMBER[tensor.ggml_type]
    if len(tensor.shape) == 1 and not weights.is_plain:
        raise _refused(header, f"stores the vector {tensor.name!r} in {weights.name}")
    paired = family.rotary_pairs and re.search(r"\.attn_[qk]\.", tensor.name)
    return TensorSpec(
        name,
        file,
        tensor.offset,
        tensor.nbytes,
        weights.name,
        tensor.shape,
        paired_head_dim=head_dim if paired else None,
        minus_one=family.norms_plus_one and tensor.name.endswith("norm.weight"),
    )


def _check_types(header: GgufHeader) -> None:
    from gguf import GGMLQuantizationType

    counts = Counter(tensor.ggml_type for tensor in header.tensors)
    unknown = [
        f"{GGMLQuantizationType(kind).name} ({count})" for kind, count in counts.items() if kind not in _BY_NUMBER
    ]
    if unknown:
        there = ", ".join(GGMLQuantizationType(kind).name for kind, _ in counts.most_common())
        raise CheckpointError(
            "gguf-unsupported",
            f"{header.path} has tensors in types that cannot be read yet: {', '.join(unknown)}; it holds {there}",
            hint=f"types that can: {', '.join(each.name for each in _BY_NUMBER.values())}",
        )


def _floats(header: GgufHeader, tensor: GgufTensor) -> list[float]:
    if tensor.ggml_type != FORMATS["F32"].number:
        raise _refused(header, f"stores {tensor.name!r} in another type than F32")
    values = np.fromfile(header.path, "<f4", math.prod(tensor.shape), offset=tensor.offset)
    factors: list[float] = values.tolist()
    return factors


def _refused(header: GgufHeader, what: str) -> CheckpointError:
    return CheckpointError("gguf-unsupported", f"{header.path} {what}")
