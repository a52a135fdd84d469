"""How others quantise to integers, by what config.json says of it: weight = scale of its group * (integer - zero).

Floats of 4 bits (E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives) are integers too, once they are doubled; in
MXFP4 a byte beside each 32 of them is the exponent of their scale, 2 ** (byte - 127).

Sources: compressed_tensors/quantization/quant_args.py and compressors/mx_utils.py (0.20), OCP
Microscaling Formats (1.0), the GPTQConfig and AwqConfig of
transformers/utils/quantization_config.py (5.23).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Layout(StrEnum):
    """How the integers lie in the file, named as people call the method."""

    PACKED = "compressed-tensors pack-quantized"
    BYTES = "compressed-tensors int8"
    MXFP4 = "compressed-tensors mxfp4-pack-quantized"
    GPTQ = "gptq"
    AWQ = "awq"


_COMPRESSED_LAYOUTS = {
    "pack-quantized": Layout.PACKED,
    "int-quantized": Layout.BYTES,
    "naive-quantized": Layout.BYTES,
    "mxfp4-pack-quantized": Layout.MXFP4,
}


@dataclass(frozen=True)
class Scheme:
    """What config.json says of all quantised matrices of a checkpoint."""

    layout: Layout
    bits: int  # of an integer where it lies: 4 or 8
    group_columns: int | None  # that share a scale; None: the whole row
    symmetric: bool  # the zero is the middle
    act_order: bool = False  # a column may belong to any group
    zero_offset: int = 0  # what a stored zero lacks: 1 in GPTQ's first format

    @property
    def middle(self) -> int:
        """The zero of integers on both sides of it: doubled floats of 4 bits go from -12 to 12, and take 5."""
        return 16 if self.layout is Layout.MXFP4 else 1 << (self.bits - 1)

    @property
    def words(self) -> str:
        """``gptq, 4 bits in groups of 128``."""
        groups = f"in groups of {self.group_columns}" if self.group_columns else "with a scale for each row"
        return f"{self.layout}, {self.bits} bits {groups}{', in act-order' * self.act_order}"


def scheme_of(quantization: object) -> Scheme | None:
    """The scheme of a ``quantization_config``; ``None`` where it says another method, or a variant not read."""
    if not isinstance(quantization, dict):
        return None
    of_method = {"compressed-tensors": _compressed, "gptq": _gptq, "awq": _awq}
    method = quantization.get("quant_method")
    make = of_method.get(method) if isinstance(method, str) else None
    scheme = make(quantization) if make else None
    return scheme if scheme and scheme.bits in (4, 8) and scheme.group_columns != 0 else None


def _gptq(said: Mapping[str, Any]) -> Scheme | None:
    form = said.get("checkpoint_format") or said.get("format") or "gptq"
    if form not in ("gptq", "gptq_v2") or said.get("is_marlin_format"):
        return None
    return Scheme(
        Layout.GPTQ,
        _count(said.get("bits")),
        _group(said.get("group_size", 128)),
        symmetric=said.get("sym", True) is True,
        act_order=bool(said.get("desc_act")),
        zero_offset=1 if form == "gptq" else 0,
    )


def _awq(said: Mapping[str, Any]) -> Scheme | None:
    form = str(said.get("version") or said.get("format") or "gemm").lower()
    bits = _count(said.get("bits", said.get("w_bit")))
    if form != "gemm" or bits != 4 or said.get("backend") == "llm-awq":
        return None
    return Scheme(Layout.AWQ, bits, _group(said.get("group_size", said.get("q_group_size", 128))), symmetric=False)


def _compressed(said: Mapping[str, Any]) -> Scheme | None:
    layout = _COMPRESSED_LAYOUTS.get(str(said.get("format")))
    schemes = {_of_weights(weights, layout) for weights in _weights_of_groups(said)} if layout else set()
    if len(schemes) != 1 or _is_sparse(said) or _is_rotated(said):
        return None
    return schemes.pop()


def _of_weights(weights: object, layout: Layout) -> Scheme | None:
    kind = "float" if layout is Layout.MXFP4 else "int"
    if not isinstance(weights, dict) or weights.get("type", "int") != kind:
        return None
    bits, strategy = _count(weights.get("num_bits")), weights.get("strategy")
    group = _group(weights.get("group_size")) if strategy in ("group", None) else None
    if strategy not in ("group", "channel", "tensor", None) or bits not in (4, 8):
        return None
    if layout is Layout.MXFP4 and (bits, group, weights.get("symmetric", True)) != (4, 32, True):
        return None
    return Scheme(
        layout,
        8 if layout is Layout.BYTES else bits,
        group,
        symmetric=weights.get("symmetric", True) is True,
        act_order=weights.get("actorder") in ("group", "dynamic", True),
    )


def _weights_of_groups(said: Mapping[str, Any]) -> list[object]:
    groups = said.get("config_groups")
    if not isinstance(groups, dict):
        return []
    return [group.get("weights") if isinstance(group, dict) else None for group in groups.values()]


def _is_sparse(said: Mapping[str, Any]) -> bool:
    sparsity = said.get("sparsity_config")
    return isinstance(sparsity, dict) and sparsity.get("format", "dense") != "dense"


def _is_rotated(said: Mapping[str, Any]) -> bool:
    """Whether activations have to be multiplied with a Hadamard matrix first."""
    transform = said.get("transform_config")
    return isinstance(transform, dict) and bool(transform.get("config_groups"))


def _group(value: object) -> int | None:
    """Columns of a group; ``None`` for the whole row, 0 for what cannot be."""
    return None if value is None or value == -1 else _count(value)


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
