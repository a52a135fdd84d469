"""Tensors sorted into what they are to the model: embedding, head, layers, and the rest."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmrun.checkpoint import families
from llmrun.checkpoint.config import mixture_of_experts
from llmrun.checkpoint.spec import TensorSpec
from llmrun.errors import CheckpointError
from llmrun.formats import FORMATS

# integers and eight-bit floats as weights, where nothing says what they are, mean quantised weights
_QUANTISED_DTYPES = ("U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F4")
_PARAMETERS = ("weight", "bias", "weight_scale", "weight_scale_inv")
_LAYER = re.compile(r"(?P<prefix>(?:[A-Za-z_]\w*\.)*?)(?P<index>0|[1-9]\d{0,5})\.(?P<rest>.+)")


@dataclass(frozen=True)
class Groups:
    """The tensors of a checkpoint by their part in the model; ``layers[n]`` belongs to layer n."""

    embedding: tuple[TensorSpec, ...]
    head: tuple[TensorSpec, ...]
    layers: tuple[tuple[TensorSpec, ...], ...]
    rest: tuple[TensorSpec, ...]


def group(tensors: Mapping[str, TensorSpec], n_layers: int) -> Groups:
    """Sort ``tensors`` into the parts of a model of ``n_layers`` layers.

    Raises:
        CheckpointError: ``missing-tensor``, ``broken-config``, ``unsupported-format``, ``unsupported-architecture``,
            ``wrong-dtype``.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not _is_ignored(tensor)}
    for tensor in kept.values():
        _check_runnable(tensor)
    prefix, layers = _layers(kept, n_layers)
    others = [tensor for name, tensor in kept.items() if not _is_under(name, prefix)]
    embedding = tuple(tensor for tensor in others if _owner(tensor.name) in families.EMBEDDING_NAMES)
    head = tuple(tensor for tensor in others if _owner(tensor.name) in families.HEAD_NAMES)
    taken = {tensor.name for tensor in (*embedding, *head)}
    rest = by_place(tensor for tensor in others if tensor.name not in taken)
    return Groups(by_place(embedding), by_place(head), layers, rest)


def by_place(tensors: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    """In the order in which they lie in the files."""
    return tuple(sorted(tensors, key=lambda tensor: (tensor.file, tensor.offset, tensor.name)))


def check_complete(layers: Sequence[Sequence[TensorSpec]], kinds: Sequence[object]) -> None:
    """Every layer must hold the tensors that the other layers of its kind (``kinds[n]``) hold.

    Raises:
        CheckpointError: ``missing-tensor``.
    """
    names = [{_within_layer(tensor.name) for tensor in tensors} for tensors in layers]
    expected: dict[object, set[str]] = defaultdict(set)
    for kind, held in zip(kinds, names, strict=True):
        expected[kind] |= held
    for layer, (kind, held) in enumerate(zip(kinds, names, strict=True)):
        lacking = sorted(expected[kind] - held)
        if lacking:
            raise CheckpointError(
                "missing-tensor",
                f"layer {layer} lacks {lacking[0]!r}, which other layers have ({len(lacking)} tensors are missing)",
                hint="a shard is missing or the checkpoint was saved incompletely: fetch it again",
            )


def _is_ignored(tensor: TensorSpec) -> bool:
    is_mask = tensor.name.endswith(families.CAUSAL_MASK_SUFFIXES) and len(tensor.shape) == 4
    return is_mask or tensor.name.endswith(families.IGNORED_SUFFIXES)


def _check_runnable(tensor: TensorSpec) -> None:
    if any(part in tensor.name for part in families.EXPERT_TENSOR_PARTS):
        raise mixture_of_experts(f"tensor {tensor.name!r:.120}")
    if "language_model." in tensor.name:
        raise CheckpointError("unsupported-architecture", f"a multimodal checkpoint (tensor {tensor.name!r:.120})")
    if tensor.dtype in FORMATS:
        return
    if tensor.dtype in _QUANTISED_DTYPES or tensor.dtype.startswith(("F8_", "F6_")):
        raise CheckpointError(
            "unsupported-format",
            f"{tensor.name!r:.120} is {tensor.dtype}, and nothing says how it is quantised",
            hint="use the checkpoint in bf16, fp16 or fp32, or a .gguf file of it",
        )
    raise CheckpointError("wrong-dtype", f"{tensor.name!r:.120} is {tensor.dtype}; llmrun runs {', '.join(FORMATS)}")


def _layers(tensors: Mapping[str, TensorSpec], n_layers: int) -> tuple[str, tuple[tuple[TensorSpec, ...], ...]]:
    numbered: dict[str, dict[int, list[TensorSpec]]] = defaultdict(lambda: defaultdict(list))
    for name, tensor in tensors.items():
        if match := _LAYER.fullmatch(name):
            numbered[match["prefix"]][int(match["index"])].append(tensor)
    if not numbered:
        raise CheckpointError("missing-tensor", "the checkpoint holds no numbered layers")
    found = {prefix: layers for prefix, layers in numbered.items() if _is_range(layers, n_layers)}
    if len(found) > 1:
        raise CheckpointError(
            "unsupported-architecture", f"several stacks of {n_layers} layers: {', '.join(sorted(found))[:200]}"
        )
    if not found:
        raise _wrong_count(numbered, n_layers)
    prefix, layers = next(iter(found.items()))
    return prefix, tuple(by_place(layers[layer]) for layer in range(n_layers))


def _is_range(layers: Mapping[int, object], n_layers: int) -> bool:
    return len(layers) == n_layers and max(layers) == n_layers - 1


def _wrong_count(numbered: Mapping[str, Mapping[int, object]], n_layers: int) -> CheckpointError:
    prefix, layers = max(numbered.items(), key=lambda item: len(item[1]))
    highest = max(layers)
    if highest >= n_layers:
        return CheckpointError(
            "broken-config", f"config.json says {n_layers} layers but the checkpoint holds {prefix}{highest}"
        )
    absent = next(layer for layer in range(n_layers) if layer not in layers)
    return CheckpointError(
        "missing-tensor", f"config.json says {n_layers} layers, but no tensor of {prefix}{absent} is there"
    )


def _is_under(name: str, prefix: str) -> bool:
    match = _LAYER.fullmatch(name)
    return match is not None and match["prefix"] == prefix


def _within_layer(name: str) -> str:
    match = _LAYER.fullmatch(name)
    assert match is not None
    return match["rest"]


def _owner(name: str) -> str:
    """The module that owns a parameter: ``lm_head`` of ``lm_head.weight``."""
    parts = name.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1] in _PARAMETERS else ""
