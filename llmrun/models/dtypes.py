"""What is computed in: safetensors' names of dtypes as torch's, and the dtype of a device."""

from __future__ import annotations

import torch

from llmrun.checkpoint.spec import ModelSpec
from llmrun.planner.plan import is_gpu

_TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a tensor that can be computed with: BF16, F16, F32."""
    return _TORCH[name]


def compute_dtype(spec: ModelSpec, device: str) -> torch.dtype:
    """What a device computes in: a GPU in the checkpoint's own dtype, the CPU in fp32 whatever the weights are.

    Activations in bf16 cost small models dearly, and a CPU is no faster with them: it multiplies by weights as
    they lie.
    """
    return torch_dtype(spec.dtype) if is_gpu(device) else torch.float32


def cache_dtype(spec: ModelSpec) -> torch.dtype:
    """What keys and values are kept in on the CPU: fp16 has 8 times the precision of bf16 in as many bytes."""
    return torch.float32 if spec.dtype == "F32" else torch.float16
