"""How the bytes of a weight matrix lie, for every format: one description that file, disk, memory and kernel share.

A matrix is `rows` rows of `row_bytes` contiguous bytes; a row is `columns / block_weights` blocks of `block_bytes`. Of
a plain format (BF16, F16, F32, F8_E4M3) a block is one weight. The others are ggml's block types byte for byte
(`ggml-common.h`), in GGUF files and in llmrun's own checkpoints alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

NOT_GGMLS = 1000
"""Formats that ggml has not have numbers above this."""


@dataclass(frozen=True)
class WeightFormat:
    """One format: its name as `TensorSpec.dtype` says it, its block, and ggml's own number for it, if it has one."""

    name: str
    block_weights: int
    block_bytes: int
    number: int

    @property
    def is_plain(self) -> bool:
        """Whether torch has a dtype for it: a block is one weight."""
        return self.block_weights == 1

    @property
    def is_computed_in(self) -> bool:
        """Whether models compute in it: BF16, F16, F32."""
        return self.is_plain and self.block_bytes > 1

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes, scales included."""
        return 8 * self.block_bytes / self.block_weights

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns` weights. ValueError unless `columns` is a positive multiple of the block."""
        if columns <= 0 or columns % self.block_weights:
            raise ValueError(f"a row of {columns} weights is not made of {self.name} blocks of {self.block_weights}")
        return columns // self.block_weights * self.block_bytes


def _by_name(*formats: WeightFormat) -> Mapping[str, WeightFormat]:
    return MappingProxyType({each.name: each for each in formats})


FORMATS: Mapping[str, WeightFormat] = _by_name(
    WeightFormat("F32", 1, 4, 0),
    WeightFormat("F16", 1, 2, 1),
    WeightFormat("BF16", 1, 2, 30),
    WeightFormat("F8_E4M3", 1, 1, 1001),
    WeightFormat("Q8_0", 32, 34, 8),
    WeightFormat("Q4_0", 32, 18, 2),
    WeightFormat("Q4_1", 32, 20, 3),
    WeightFormat("Q5_0", 32, 22, 6),
    WeightFormat("Q5_1", 32, 24, 7),
    WeightFormat("Q4_K", 256, 144, 12),
    WeightFormat("Q5_K", 256, 176, 13),
    WeightFormat("Q6_K", 256, 210, 14),
)


def packed_bytes(shape: Sequence[int], name: str) -> int:
    """Bytes of a tensor of that shape: rows of its last dimension. ValueError where that is not whole blocks."""
    *outer, columns = shape
    return math.prod(outer) * weight_format(name).row_bytes(columns)


def weight_format(name: str) -> WeightFormat:
    """The format of that name. KeyError where there is none."""
    return FORMATS[name]
