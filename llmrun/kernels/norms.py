"""A model's own norms by the kernels, where they are plain ones by the root of the mean square.

transformers computes them with six of torch's operators, which take longer for a token than the numbers do.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import rms_norm

from llmrun.kernels.multiply import kernels
from llmrun.kernels.own_module import OwnModule, replace_modules

EPSILONS = ("variance_epsilon", "eps")
"""What models call the number that keeps a norm from dividing by nothing."""


class RmsNorm(OwnModule):
    """``weight * x / sqrt(epsilon + mean of the squares of x)``, fp32 on the CPU, in place of a norm that is this."""

    weight: nn.Parameter

    def __init__(self, original: nn.Module, epsilon: float) -> None:
        super().__init__(original)
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., D)`` to the same."""
        own = kernels(torch.get_num_threads())
        if own is None:
            return rms_norm(x, x.shape[-1:], self.weight, self.epsilon)
        return own.rms_norm(x.contiguous(), self.weight, self.epsilon)


def use_own_norms(model: nn.Module) -> None:
    """Put ``RmsNorm`` in the place of every module of a model, in fp32 on the CPU, that computes what it does."""
    replace_modules(model, _kind, _is_plain, lambda module: RmsNorm(module, _epsilon(module)))


def _kind(module: nn.Module) -> Hashable | None:
    size, epsilon = _size(module), _epsilon(module)
    return (type(module), size, epsilon) if size and epsilon else None


def _size(module: nn.Module) -> int:
    """Of the vector of what may be such a norm: it takes one tensor, and has one vector and nothing else; 0: none."""
    parameters = dict(module.named_parameters())
    if list(parameters) != ["weight"] or parameters["weight"].ndim != 1 or list(module.buffers()):
        return 0
    return len(parameters["weight"]) if len(inspect.signature(module.forward).parameters) == 1 else 0


def _epsilon(module: nn.Module) -> float:
    """0: it has none."""
    return next((value for name in EPSILONS if isinstance(value := vars(module).get(name), float)), 0.0)


def _is_plain(module: nn.Module) -> bool:
    """Whether it gives the numbers that ``RmsNorm`` would, of random vectors of which some are very short."""
    generator, size, epsilon = torch.Generator().manual_seed(0), _size(module), _epsilon(module)
    weight = torch.rand(size, generator=generator) + 0.5
    x = torch.randn(3, size, generator=generator) * torch.tensor([1e-3, 1.0, 30.0])[:, None]
    found = functional_call(module, {"weight": weight}, (x,))
    expected = rms_norm(x, (size,), weight, epsilon)
    return isinstance(found, torch.Tensor) and torch.allclose(found, expected, rtol=1e-5, atol=0)
