"""A unit's tensors as views into the memory that holds its bytes."""

from __future__ import annotations

import torch

from llmrun.checkpoint.layout import TensorView, UnitLayout
from llmrun.checkpoint.spec import TensorSpec
from llmrun.formats import weight_format
from llmrun.kernels.packed import as_weight


def as_tensor(memory: memoryview) -> torch.Tensor:
    """The bytes of ``memory`` as a tensor that shares them."""
    return torch.frombuffer(memory, dtype=torch.uint8)


def unit_views(memory: torch.Tensor, layout: UnitLayout, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors of a unit by name, viewed in ``memory`` (bytes, on any device), to be computed with in ``dtype``."""
    return {view.name: _tensor(memory[view.buffer_offset :][: view.nbytes], view, dtype) for view in layout.views}


def embedding_rows(data: torch.Tensor, matrix: TensorSpec) -> torch.Tensor:
    """Some rows of ``matrix``, whose bytes these are."""
    columns = matrix.shape[1]
    n_rows = len(data) // weight_format(matrix.dtype).row_bytes(columns)
    return as_weight(data, matrix.dtype, (n_rows, columns), torch.float32)


def _tensor(data: torch.Tensor, view: TensorView, dtype: torch.dtype) -> torch.Tensor:
    weight = as_weight(data, view.dtype, view.shape, dtype, view.paired_head_dim)
    return weight - 1 if view.minus_one else weight
