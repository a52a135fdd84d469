"""Checkpoints that others have quantised, by what their config.json says: which can be read, and why not the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmrun.checkpoint.files import Files
from llmrun.checkpoint.float8 import float8_of
from llmrun.checkpoint.schemes import Scheme, scheme_of
from llmrun.checkpoint.strict_json import MAX_CONFIG_BYTES, read_json
from llmrun.errors import CheckpointError

CONFIG_FILE = "config.json"
OWN_METHOD = "llmrun"  # packed as ``llmrun.checkpoint.packed`` says

# What llmrun would have to read. Sources: transformers/utils/quantization_config.py (5.23), and the documentation of
# compressed-tensors for its formats.
_MISSING: Mapping[str, str] = {
    "awq": "of awq it reads 4 bits in the version gemm",
    "bitsandbytes": "4-bit NF4 or FP4 blocks, or int8 with outliers, of bitsandbytes",
    "fp8": "of fp8 it reads e4m3",
    "gptq": "of gptq it reads 4 and 8 bits in the formats gptq and gptq_v2",
    "mxfp4": "4-bit floats with an exponent for each 32 (blocks and scales of experts)",
}
_COMPRESSED: Mapping[str, str] = {
    "pack-quantized": "it reads 4 and 8 bits, the same for all matrices, neither sparse nor rotated",
    "int-quantized": "it reads int8, the same for all matrices, neither sparse nor rotated",
    "naive-quantized": "int8 or 8-bit floats, the same for all matrices, neither sparse nor rotated",
    "float-quantized": "8-bit floats, the same for all matrices, neither sparse nor rotated",
    "mxfp4-pack-quantized": "4-bit floats with an exponent for each 32, neither sparse nor rotated",
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


def scheme_in(raw: Mapping[str, Any]) -> Scheme | None:
    """How others quantised the weights to integers that llmrun repacks, by a config.json; ``None``: they did not."""
    return scheme_of(quantization_in(raw))


def is_repackable(files: Files) -> bool:
    """Whether they are a checkpoint whose weights are repacked before it is run.

    Raises:
        CheckpointError: ``broken-config``, ``unreadable``.
    """
    if CONFIG_FILE not in files.names():
        return False
    raw = read_json(files, CONFIG_FILE, reference="broken-config", max_bytes=MAX_CONFIG_BYTES)
    return scheme_in(raw) is not None


def quantization_in(raw: Mapping[str, Any]) -> object:
    """What a config.json says of how its weights are quantised."""
    return raw.get("quantization_config") or raw.get("compression_config")


def refuse_quantised(quantization: object) -> None:
    """Refuse a ``quantization_config`` of which llmrun cannot read the weights; nothing where there is none.

    Raises:
        CheckpointError: ``unsupported-format``, with the method's name and what is missing.
    """
    if not quantization:
        return
    said: Mapping[str, Any] = quantization if isinstance(quantization, dict) else {}
    method = str(said.get("quant_method", "unnamed"))
    if method == OWN_METHOD or scheme_of(quantization) or float8_of(quantization):
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
