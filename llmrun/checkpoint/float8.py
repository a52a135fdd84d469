"""8-bit floats as others publish them: matrices of F8_E4M3, each with a small tensor of scales beside it.

A weight is the float times the scale of its block; activations are computed with as they are, whatever scheme the
checkpoint names for them. Sources: transformers/utils/quantization_config.py (5.23: FineGrainedFP8Config,
FbgemmFp8Config), compressed_tensors/quantization/quant_args.py (0.20).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmrun.checkpoint.spec import ScaleBlocks, TensorSpec
from llmrun.errors import CheckpointError

DTYPE = "F8_E4M3"
_MATRIX = ".weight"
_SCALES = (".weight_scale_inv", ".weight_scale")  # both are multiplied with
_SCALE_DTYPES = ("F32", "BF16", "F16")
_OF_ACTIVATIONS = (".input_scale", ".input_scale_ub", ".activation_scale", ".k_scale", ".v_scale", ".q_scale")


@dataclass(frozen=True)
class Float8:
    """What config.json says of the matrices of 8-bit floats.

    ``block`` is the rows and columns of one scale; ``None``: there is one for each row, or one for the matrix.
    """

    block: tuple[int, int] | None


def float8_of(quantization: object) -> Float8 | None:
    """What a ``quantization_config`` says; ``None`` where it says another method, or a variant not read.

    Raises:
        CheckpointError: ``broken-config``, a size of blocks that cannot be.
    """
    if not isinstance(quantization, dict):
        return None
    method = quantization.get("quant_method")
    if method == "fp8":
        is_e4m3 = quantization.get("fmt") in (None, "e4m3", "float8_e4m3fn")
        return Float8(_block(quantization.get("weight_block_size"))) if is_e4m3 else None
    if method == "fbgemm_fp8":
        return Float8(None)
    return _compressed(quantization) if method == "compressed-tensors" else None


def _compressed(said: Mapping[str, Any]) -> Float8 | None:
    groups = said.get("config_groups")
    if said.get("format") not in ("float-quantized", "naive-quantized") or not isinstance(groups, dict):
        return None
    weights = [group.get("weights") if isinstance(group, dict) else None for group in groups.values()]
    found = {_of_weights(each) for each in weights}
    sparsity, transform = said.get("sparsity_config"), said.get("transform_config")
    is_dense = not isinstance(sparsity, dict) or sparsity.get("format", "dense") == "dense"
    return found.pop() if len(found) == 1 and is_dense and not transform else None


def _of_weights(weights: object) -> Float8 | None:
    """How compressed-tensors says that the weights of one of its groups are quantised."""
    if not isinstance(weights, dict) or (weights.get("type"), weights.get("num_bits")) != ("float", 8):
        return None
    strategy = weights.get("strategy")
    if strategy == "block":
        return Float8(_block(weights.get("block_structure")))
    if strategy == "group":
        return Float8(_block([1, weights.get("group_size")]))
    return Float8(None) if strategy in ("channel", "tensor", None) else None


def _block(said: object) -> tuple[int, int] | None:
    if said is None:
        return None
    if not isinstance(said, list) or len(said) != 2 or not all(type(size) is int and size > 0 for size in said):
        raise CheckpointError(
            "broken-config", f"config.json: {said!r:.40} are no rows and columns of a block of weights"
        )
    return said[0], said[1]


def with_scales(tensors: Mapping[str, TensorSpec], said: Float8 | None) -> dict[str, TensorSpec]:
    """``tensors``, each matrix of 8-bit floats with the place of its scales, and without scales of activations.

    Without scales and without a word about them the floats are the weights.

    Raises:
        CheckpointError: ``missing-tensor``, ``broken-quantized``, ``unsupported-format``.
    """
    if not any(tensor.dtype == DTYPE for tensor in tensors.values()):
        return dict(tensors)
    return {tensor.name: tensor for tensor in _scaled(tensors, said)}


def _scaled(tensors: Mapping[str, TensorSpec], said: Float8 | None) -> Iterator[TensorSpec]:
    for name, tensor in tensors.items():
        if name.endswith(_OF_ACTIVATIONS):
            continue
        if tensor.dtype != DTYPE:
            yield tensor
            continue
        base = name.removesuffix(_MATRIX)
        scales = next((tensors[base + suffix] for suffix in _SCALES if base + suffix in tensors), None)
        if scales and not said:
            raise CheckpointError(
                "unsupported-format",
                f"{name!r:.120} has scales beside it, and config.json does not say how it is quantised",
            )
        if said and not scales:
            raise CheckpointError(
                "missing-tensor",
                f"{name!r:.120} is {DTYPE} and has no scales beside it ({' or '.join(_SCALES)})",
                hint="a shard is missing or the checkpoint was saved incompletely: fetch it again",
            )
        yield replace(tensor, scales=_blocks(tensor, scales, said.block)) if said and scales else tensor


def _blocks(matrix: TensorSpec, scales: TensorSpec, block: tuple[int, int] | None) -> ScaleBlocks:
    """Of how many rows and columns each scale is, by the shape of the scales."""
    if len(matrix.shape) != 2 or 0 in matrix.shape:
        raise _broken(f"{matrix.name!r:.120} has scales, and the shape {list(matrix.shape)} of no matrix")
    if scales.dtype not in _SCALE_DTYPES:
        raise _broken(f"{scales.name!r:.120} is {scales.dtype}; scales are {', '.join(_SCALE_DTYPES)}")
    rows, columns = matrix.shape
    if scales.shape in ((), (1,), (1, 1)):
        return ScaleBlocks(scales.name, rows, columns)
    if scales.shape in ((rows,), (rows, 1)):
        return ScaleBlocks(scales.name, 1, columns)
    if block and scales.shape == (-(-rows // block[0]), -(-columns // block[1])):
        return ScaleBlocks(scales.name, min(block[0], rows), min(block[1], columns))
    of_blocks = f"in blocks of {block[0]} x {block[1]} " if block else ""
    raise _broken(
        f"{scales.name!r:.120} has the shape {list(scales.shape)}, and the weights {of_blocks}{list(matrix.shape)}"
    )


def _broken(what: str) -> CheckpointError:
    return CheckpointError("broken-quantized", what, hint="fetch the checkpoint again")
