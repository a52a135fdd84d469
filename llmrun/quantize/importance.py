"""How much each column of a matrix matters: the mean square of what it is multiplied with, over a text.

The error of a product is sum over columns of (w - w') * x; where the columns of x do not depend on each other its
expected square is sum E[x^2] * (w - w')^2, which is what rounding then minimises.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Vector = Tensor
"""Of the columns of a matrix, float32 (columns,)."""


class MeanSquares:
    """Adds up squares of activations, column by column, for each tensor. Memory: one float64 vector a tensor."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, activations: Tensor) -> None:
        """Count ``activations`` (..., columns), that the matrix ``name`` is multiplied with."""
        flat = activations.detach().reshape(-1, activations.shape[-1]).float()
        squares = torch.linalg.vector_norm(flat, dim=0).double().square()  # without a copy of them all
        self._sums[name] = self._sums.get(name, 0) + squares
        self._counts[name] = self._counts.get(name, 0) + len(flat)

    def importance(self, least_tokens: int = 1) -> dict[str, Tensor]:
        """The mean square of each column, float32 (columns,), by name of tensor; what is not finite counts nothing.

        Tensors that met fewer activations are left out: of a few these say little.
        """
        known = {name: count for name, count in self._counts.items() if count >= least_tokens}
        means = {name: (self._sums[name] / count).float() for name, count in known.items()}
        return {name: torch.nan_to_num(mean, nan=0.0, posinf=0.0) for name, mean in means.items()}


def save_importance(path: Path, importance: Mapping[str, Tensor]) -> None:
    """Write it as safetensors, whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    save_file({name: vector.contiguous() for name, vector in importance.items()}, unfinished)
    unfinished.replace(path)


def load_importance(path: Path) -> dict[str, Tensor]:
    """What ``save_importance`` wrote."""
    loaded: dict[str, Tensor] = load_file(path)
    return loaded
