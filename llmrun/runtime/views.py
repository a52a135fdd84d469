"""A unit's tensors as views into the memory that holds its bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from llmrun.checkpoint.layout import TensorView, UnitLayout
from llmrun.checkpoint.spec import TensorSpec
from llmrun.formats import weight_format
from llmrun.kernels.packed import Meets, as_scales, as_weight
from llmrun.kernels.scales import Scales


def as_tensor(memory: memoryview) -> torch.Tensor:
    """The bytes of ``memory`` as a tensor that shares them."""
    return torch.frombuffer(memory, dtype=torch.uint8)


def unit_views(
    memory: torch.Tensor,
    layout: UnitLayout,
    dtype: torch.dtype,
    *,
    fine: bool = True,
    meets: Callable[[str, torch.Tensor], None] | None = None,
) -> dict[str, torch.Tensor]:
    """The parameters of a unit by name, viewed in ``memory`` (bytes, on any device), to be computed with in ``dtype``.

    Args:
        fine: as ``kernels.multiply`` has it.
        meets: is told, by name, the states ``(..., columns)`` that matrices are multiplied with.
    """
    views = {view.name: view for view in layout.views}
    of_others = {view.scales.tensor for view in layout.views if view.scales}
    return {
        view.name: _tensor(
            memory, view, dtype, _scales(memory, view, views), fine, partial(meets, view.name) if meets else None
        )
        for view in layout.views
        if view.name not in of_others
    }


def embedding_rows(data: torch.Tensor, matrix: TensorSpec) -> torch.Tensor:
    """Some rows of ``matrix``, whose bytes these are."""
    columns = matrix.shape[1]
    n_rows = len(data) // weight_format(matrix.dtype).row_bytes(columns)
    return as_weight(data, matrix.dtype, (n_rows, columns), torch.float32)


def _tensor(
    memory: torch.Tensor, view: TensorView, dtype: torch.dtype, scales: Scales | None, fine: bool, meets: Meets | None
) -> torch.Tensor:
    data, pairs = _bytes(memory, view), view.paired_head_dim
    weight = as_weight(data, view.dtype, view.shape, dtype, pairs, scales=scales, fine=fine, meets=meets)
    return weight - 1 if view.minus_one else weight


def _scales(memory: torch.Tensor, matrix: TensorView, views: Mapping[str, TensorView]) -> Scales | None:
    if matrix.scales is None:
        return None
    view = views[matrix.scales.tensor]
    return as_scales(_bytes(memory, view), view.dtype, matrix.shape, matrix.scales.rows, matrix.scales.columns)


def _bytes(memory: torch.Tensor, view: TensorView) -> torch.Tensor:
    return memory[view.buffer_offset :][: view.nbytes]
