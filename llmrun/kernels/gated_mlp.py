"""A model's own gated MLPs by the kernels: a few tokens go through in one call.

A token in between would be a dozen calls of Python code and torch's operators, none of which has much to do: a fifth of
the time of a model whose weights are in RAM.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import nn
from torch.nn.functional import linear, silu

from llmrun.kernels.blocks import gated_mlp
from llmrun.kernels.multiply import kernels
from llmrun.kernels.own_module import OwnModule, gives, linear_parts, replace_modules, settings_of, takes, with_parts
from llmrun.kernels.packed import product_of

PARTS = ("gate_proj", "up_proj", "down_proj")
WIDTH, INNER = 8, 12
"""Of what a module is tried with."""


class GatedMlp(OwnModule):
    """``down(silu(gate(x)) * up(x))`` (SwiGLU, Shazeer 2020, arXiv:2002.05202), in place of a module that is this."""

    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, T, D)`` to the same."""
        own = kernels(torch.get_num_threads()) if takes(x) else None
        if own is not None:
            gate, up, down = (product_of(part.weight) for part in (self.gate_proj, self.up_proj, self.down_proj))
            if gate and up and down:
                return gated_mlp(own, x, gate, up, down)
        output: torch.Tensor = self._original(x)
        return output


def use_own_mlps(model: nn.Module) -> None:
    """Put ``GatedMlp`` in the place of every module of a model that computes what it does."""
    replace_modules(model, _kind, _is_plain, GatedMlp)


def _kind(module: nn.Module) -> Hashable | None:
    parts = linear_parts(module)
    plain = set(parts) == set(PARTS) and all(part.bias is None for part in parts.values())
    return settings_of(module) if plain and not list(module.named_parameters(recurse=False)) else None


def _is_plain(module: nn.Module) -> bool:
    """Whether it gives what ``GatedMlp`` does, of random vectors, with random matrices that are small."""
    generator = torch.Generator().manual_seed(0)
    shapes = (INNER, WIDTH), (INNER, WIDTH), (WIDTH, INNER)
    matrices = [torch.randn(shape, generator=generator) for shape in shapes]
    parts = {name: nn.Linear(WIDTH, INNER, bias=False) for name in PARTS}
    for part, matrix in zip(parts.values(), matrices, strict=True):
        part.weight = nn.Parameter(matrix)
    gate, up, down = matrices
    x = torch.randn(1, 3, WIDTH, generator=generator)
    expected = linear(silu(linear(x, gate)) * linear(x, up), down)
    return gives(with_parts(module, parts), expected, x)
