"""safetensors' names of dtypes, as torch's."""

from __future__ import annotations

import torch

_TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a tensor that can be computed with: BF16, F16, F32."""
    return _TORCH[name]
