"""Rows of integers with scales and zeros as ggml's blocks of 32, or as plain numbers where no block holds them.

Codes are never changed. Scales become fp16: exact for those that were fp16, for bf16 from 2^-14 on, and for powers of
two from 2^-24 on; else they are rounded by 2^-11 of themselves, or by 2^-25 below that. What a zero stands for in Q4_1,
-zero * scale, is rounded to fp16, too: by 2^-11 of itself, which is 0.0073 scales at most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llmrun.checkpoint.integers import BLOCK
from llmrun.kernels.packing import half_bytes, nibble_bytes, sequential_bytes
from llmrun.kernels.reference import PLAIN_DTYPES
from llmrun.quantize.layouts.unpacked import Unpacked


def encode(name: str, rows: Unpacked, groups: Tensor) -> Tensor:
    """``rows`` in the format ``name``, flat uint8: Q4_0, Q4_1, Q5_0, Q8_0, BF16 or F16.

    Args:
        groups: of the columns, int64 (columns,); for blocks the same in every 32. Zeros count in Q4_1 and plain
            formats alone; the others take the middle of the codes.
    """
    if name in PLAIN_DTYPES:
        return weights(rows, groups).to(PLAIN_DTYPES[name]).view(torch.uint8).flatten()
    of_blocks = groups[::BLOCK]
    scale = rows.scales[:, of_blocks].flatten()
    q = rows.codes.reshape(-1, BLOCK)
    if name == "Q8_0":
        return torch.cat([half_bytes(scale), q - 128], dim=1).flatten()
    if name == "Q4_0":
        return torch.cat([half_bytes(scale), nibble_bytes(q, 16)], dim=1).flatten()
    if name == "Q5_0":
        return torch.cat([half_bytes(scale), sequential_bytes(q >> 4), nibble_bytes(q, 16)], dim=1).flatten()
    assert name == "Q4_1", name
    low = -rows.zeros[:, of_blocks].flatten().float() * scale.half().float()
    return torch.cat([half_bytes(scale), half_bytes(low), nibble_bytes(q, 16)], dim=1).flatten()


def weights(rows: Unpacked, groups: Tensor) -> Tensor:
    """What the integers mean, float32 (rows, columns)."""
    result = rows.codes.float()
    result -= rows.zeros[:, groups]
    result *= rows.scales[:, groups]
    return result
