"""Which format each tensor of a checkpoint is given.

Matrices of the layers are what a token reads; they take the format that was asked for. The head is read for every
token too, but every one of its rows is a candidate: it keeps six bits at least, tied to the embedding or not. An
embedding of its own, of which a token reads one row, stays as it is; so do norms, biases, and the routers of experts.

`q4` is Q4_K: on normal weights it loses 7.1 % at 4.5 bits where Q4_0 loses 8.1 % (benchmarks/quantise_error.py); Q4_1
loses as little at 5.0 bits, and stands in where rows are not made of blocks of 256.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmrun.checkpoint.spec import ModelSpec, TensorSpec, UnitKind
from llmrun.errors import CheckpointError, UsageError
from llmrun.formats import FORMATS, WeightFormat, weight_format

_ROUTER = re.compile(r"(^|\.)(gate|router|shared_expert_gate)\.weight")
TRANSPOSED_FAMILIES = frozenset({"gpt2", "openai-gpt"})  # Conv1D: a row is no row of the product
_STAND_INS = {"Q4_K": "Q4_1", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # as good or better, in blocks of 32


@dataclass(frozen=True)
class Recipe:
    """What `--format` stands for: the formats of the layers' matrices and of the head."""

    name: str
    layers: WeightFormat
    head: WeightFormat


def recipe(name: str) -> Recipe:
    """The recipe of that name, in lower or upper case.

    Raises:
        UsageError: ``bad-option``.
    """
    layers = {"q4": "Q4_K", "q8": "Q8_0"}.get(name.lower(), name.upper())
    if layers not in FORMATS or FORMATS[layers].is_plain:
        raise UsageError("bad-option", f"there is no format {name!r}", hint=f"there are {', '.join(recipe_names())}")
    fmt = weight_format(layers)
    return Recipe(name.lower(), fmt, fmt if fmt.bits_per_weight > 6.5 else weight_format("Q6_K"))


def recipe_names() -> list[str]:
    """Every name that ``recipe`` takes."""
    return ["q4", "q8", *(fmt.name.lower() for fmt in FORMATS.values() if not fmt.is_plain)]


def check_source(spec: ModelSpec) -> None:
    """Refuse a model that cannot be quantised.

    Raises:
        CheckpointError: ``already-quantized``, ``unsupported-architecture``.
    """
    if spec.model_type in TRANSPOSED_FAMILIES:
        raise CheckpointError(
            "unsupported-architecture",
            f"{spec.name} ({spec.model_type}) stores its matrices transposed, so their rows cannot be quantised",
        )
    for unit in spec.units:
        for tensor in unit.tensors:
            if not _is_plain(tensor) or _is_of_gguf(tensor):
                raise CheckpointError(
                    "already-quantized",
                    f"{tensor.name!r} of {spec.name} is {tensor.dtype}, in the layout of another program",
                    hint="quantise the BF16, F16 or F32 safetensors that it was made from",
                )


def formats(spec: ModelSpec, wanted: Recipe) -> dict[str, WeightFormat]:
    """The format of every tensor of ``spec``, by name; unchanged ones have that of their dtype."""
    return {
        tensor.name: target_format(tensor, unit.kind, wanted) or weight_format(tensor.dtype)
        for unit in spec.units
        for tensor in unit.tensors
    }


def target_format(tensor: TensorSpec, kind: UnitKind, wanted: Recipe) -> WeightFormat | None:
    """The format that a tensor of such a unit is given; ``None``: it stays as it is."""
    if len(tensor.shape) != 2 or not tensor.name.endswith(".weight") or not _is_plain(tensor):
        return None
    if kind is UnitKind.LAYER:
        return None if _ROUTER.search(tensor.name) else _fitting(wanted.layers, tensor)
    return _fitting(wanted.head, tensor) if kind is UnitKind.HEAD else None


def _is_plain(tensor: TensorSpec) -> bool:
    return tensor.dtype in FORMATS and weight_format(tensor.dtype).is_computed_in


def _fitting(target: WeightFormat, tensor: TensorSpec) -> WeightFormat | None:
    """``target`` or what stands in for it, where the rows are made of its blocks."""
    columns = tensor.shape[1]
    if columns % target.block_weights and target.name in _STAND_INS:
        target = weight_format(_STAND_INS[target.name])
    return None if columns % target.block_weights else target


def _is_of_gguf(tensor: TensorSpec) -> bool:
    """Whether rows or values are still as llama.cpp's converter left them."""
    return bool(getattr(tensor, "paired_head_dim", None) or getattr(tensor, "minus_one", False))
