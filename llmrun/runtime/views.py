"""A unit's tensors as views into the memory that holds its bytes."""

from __future__ import annotations

import torch

from llmrun.checkpoint.layout import TensorView, UnitLayout
from llmrun.models.dtypes import torch_dtype


def as_tensor(memory: memoryview) -> torch.Tensor:
    """The bytes of ``memory`` as a tensor that shares them."""
    return torch.frombuffer(memory, dtype=torch.uint8)


def unit_views(memory: torch.Tensor, layout: UnitLayout, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors of a unit by name, viewed in ``memory`` (bytes, on any device).

    A tensor is copied only where it cannot be used as it lies: not aligned to its elements, or of another dtype than
    the model computes in. Such tensors are few and small (norms kept in fp32) in checkpoints that people have.
    """
    return {view.name: _tensor(memory, view).to(dtype) for view in layout.views}


def _tensor(memory: torch.Tensor, view: TensorView) -> torch.Tensor:
    dtype = torch_dtype(view.dtype)
    data = memory[view.buffer_offset : view.buffer_offset + view.nbytes]
    if data.storage_offset() % dtype.itemsize:
        data = data.clone()
    return data.view(dtype).view(view.shape)
