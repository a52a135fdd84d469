"""Modules of llmrun's own in the place of those of a model that compute the same, more slowly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import nn

from llmrun.kernels.multiply import FEW_TOKENS


class OwnModule(nn.Module):
    """Stands for ``original``: it has the same parameters and parts, and all else but the class."""

    _original: nn.Module

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        vars(self).update(vars(original.eval()))
        vars(self)["_original"] = original  # not a part: what it has would be found twice


def replace_modules(
    model: nn.Module,
    kind: Callable[[nn.Module], Hashable | None],
    is_same: Callable[[nn.Module], bool],
    own: Callable[[nn.Module], nn.Module],
) -> None:
    """Put what ``own`` makes of a module in the place of each within a model that computes the same.

    ``kind`` is what those have in common of which ``is_same`` has to try but one; ``None``: it may be no such module.
    """
    known: dict[Hashable, bool] = {}
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if (found := kind(module)) is None:
                continue
            if found not in known:
                known[found] = is_same(module)
            if known[found]:
                setattr(parent, name, own(module))


def settings_of(module: nn.Module) -> Hashable:
    """What modules of a model have in common that compute alike: their class and their settings."""
    settings = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and name != "layer_idx"
    }
    parts = [(name, type(part), str(part)) for name, part in module.named_children()]
    return type(module), *sorted(settings.items()), *parts


def with_parts(module: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """The module with other parts, its own left as it is."""
    other = copy.copy(module)
    vars(other)["_modules"] = module._modules | dict(parts)
    return other


def linear_parts(module: nn.Module) -> dict[str, nn.Linear]:
    """Those parts that are plain matrices, with a bias or without."""
    return {name: part for name, part in module.named_children() if type(part) is nn.Linear}


def gives(module: nn.Module, expected: torch.Tensor, *args: Any, **kwargs: Any) -> bool:  # noqa: ANN401
    """Whether a module computes this, alone or as the first of several; one that cannot be called so does not."""
    try:
        with torch.inference_mode():
            found = module(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError):
        return False
    found = found[0] if isinstance(found, tuple) else found
    near = isinstance(found, torch.Tensor) and found.shape == expected.shape
    return near and torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def takes(states: torch.Tensor) -> bool:
    """Whether these, ``(1, T, D)``, are activations that the kernels compute with, of a few tokens.

    Prompts are left to the model's code, which takes no longer there.
    """
    shape = states.shape
    few = states.ndim == 3 and shape[0] == 1 and 0 < shape[1] <= FEW_TOKENS
    return few and states.dtype is torch.float32 and states.is_cpu and states.is_contiguous()
