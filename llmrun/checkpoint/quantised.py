"""Checkpoints that others have quantised, by what their config.json says: which can be read, and why not the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmrun.errors import CheckpointError

OWN_METHOD = "llmrun"  # packed as ``llmrun.checkpoint.packed`` says

# What llmrun would have to read. Sources: transformers/utils/quantization_config.py (5.23), and the documentation of
# compressed-tensors for its formats.
_MISSING: Mapping[str, str] = {
    "awq": "4-bit columns in int32 in AWQ's order, with scales and zeros of groups",
    "bitsandbytes": "4-bit NF4 or FP4 blocks, or int8 with outliers, of bitsandbytes",
    "fbgemm_fp8": "8-bit floats with a scale for each row",
    "fp8": "8-bit floats with a scale for each block (weight_scale_inv)",
    "gptq": "4-bit rows in int32, with scales and zeros of groups",
    "mxfp4": "4-bit floats with an exponent for each 32 (blocks and scales of experts)",
}
_COMPRESSED: Mapping[str, str] = {
    "pack-quantized": "4-bit or 8-bit weights in int32 (weight_packed) with scales of groups",
    "int-quantized": "int8 weights with scales of channels",
    "naive-quantized": "int8 or 8-bit float weights with scales of channels",
    "float-quantized": "8-bit floats with scales of channels or blocks",
    "nvfp4-pack-quantized": "4-bit floats (weight_packed) with scales of groups of 16",
}
_DETAILS = {  # the numbers worth telling, by their names in the configurations
    "bits": "{} bits",
    "w_bit": "{} bits",
    "num_bits": "{} bits",
    "group_size": "groups of {}",
    "q_group_size": "groups of {}",
    "weight_block_size": "blocks of {}",
}


def refuse_quantised(quantization: object) -> None:
    """Refuse a ``quantization_config`` of which llmrun cannot read the weights; nothing where there is none.

    Raises:
        CheckpointError: ``unsupported-format``, with the method's name and what is missing.
    """
    if not quantization:
        return
    said: Mapping[str, Any] = quantization if isinstance(quantization, dict) else {}
    method = str(said.get("quant_method", "unnamed"))
    if method == OWN_METHOD:
        return
    missing = _missing(method, said)
    raise CheckpointError(
        "unsupported-format",
        f"the checkpoint is quantised ({', '.join([f'{method:.40}', *_details(said)])}), which llmrun cannot read yet"
        + (f": {missing}" if missing else ""),
        hint="use its .gguf, or the checkpoint in bf16 that it was made from",
    )


def _missing(method: str, said: Mapping[str, Any]) -> str | None:
    if method == "compressed-tensors":
        return _COMPRESSED.get(str(said.get("format")))
    return _MISSING.get(method)


def _details(said: Mapping[str, Any]) -> list[str]:
    """The format of compressed-tensors, bits and groups, as far as they are said."""
    weights = _first_group(said)
    named = [f"{said['format']:.40}"] if isinstance(said.get("format"), str) else []
    numbers = {key: said.get(key, weights.get(key)) for key in _DETAILS}
    return named + [_DETAILS[key].format(f"{value!s:.20}") for key, value in numbers.items() if value]


def _first_group(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """How compressed-tensors says that the weights of its first group are quantised."""
    groups = said.get("config_groups")
    group = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = group.get("weights") if isinstance(group, dict) else None
    return weights if isinstance(weights, dict) else {}
