"""Thin wrappers around modules of a transformers model: weights in, the original module, weights out.

A wrapper stands where the original stood (in the ModuleList of the layers, as the embedding, as the head), so the
model's own ``forward`` runs unchanged, with its own masks, rotary embeddings and caches.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.func import functional_call

FIRST_LAYER = "layer 0"
HEAD = "head"


class WeightSource(Protocol):
    """Where a wrapper gets the weights of its unit."""

    def acquire(self, unit: str) -> AbstractContextManager[Mapping[str, torch.Tensor]]:
        """The tensors of a unit by their names in the checkpoint, on the device that computes it."""

    def rows(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(ids', weight)`` with ``weight[ids']`` the embeddings of ``ids``; ``weight`` may hold only those rows."""

    def is_permanent(self, unit: str) -> bool:
        """Whether the tensors that ``acquire`` gives in this kind of pass stay valid for good."""

    def device(self, unit: str) -> torch.device:
        """Where the unit is computed in this kind of pass."""

    def dtype(self, unit: str) -> torch.dtype:
        """What the unit is computed in, in this kind of pass."""

    @property
    def only_cpu(self) -> bool:
        """Whether the CPU computes every unit in every pass, so that no unit gets anything that lies elsewhere."""


@dataclass
class Gate:
    """Which part of a forward pass is computed, so that a long prompt can go through layer by layer.

    With ``only`` set, that unit alone computes, on ``hidden`` where given, and leaves its result in ``hidden``; the
    other wrapped units hand ``hidden`` on.
    """

    only: str | None = None
    hidden: torch.Tensor | None = None
    returns_tuple: bool = False

    @property
    def in_layer(self) -> bool:
        """Whether it is a layer's turn and ``hidden`` is all that matters of the rest of the pass."""
        return self.only not in (None, HEAD) and self.hidden is not None

    def open(self) -> None:
        """Let every unit compute, as in a plain forward pass."""
        self.only = self.hidden = None


class Wrapper(nn.Module):
    """Stands for ``inner``, the original module, and has all that it has."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the original has
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


class RestModule(Wrapper):
    """A small module that is always bound (a norm, learned positions): it computes where its own tensors are.

    To the model it seems to be where its input is, and of its dtype, so layers on other devices before or after it do
    not matter.
    """

    def __init__(self, inner: nn.Module, gate: Gate) -> None:
        super().__init__(inner)
        self._gate = gate

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """The original's output, on the device of the input; the input itself, where no use is made of the output."""
        inputs = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        if inputs is None:
            return self.inner(*args, **kwargs)
        if self._gate.in_layer and inputs is self._gate.hidden:
            return inputs
        own = next(self.inner.parameters())
        output = self.inner(*move(args, own.device, own.dtype), **move(kwargs, own.device, own.dtype))
        return move(output, inputs.device, inputs.dtype if inputs.is_floating_point() else None)


class UnitModule(Wrapper):
    """A module whose weights come and go.

    Args:
        inner: the original module, its parameters on the meta device.
        unit: the unit it belongs to.
        names: the name in the checkpoint of each of its parameters.
    """

    def __init__(self, inner: nn.Module, unit: str, names: Mapping[str, str], source: WeightSource, gate: Gate) -> None:
        super().__init__(inner)
        self._unit = unit
        self._names = names
        self._source = source
        self._gate = gate
        self._bound: Mapping[str, torch.Tensor] | None = None  # what the module has by now

    def _call(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with self._source.acquire(self._unit) as weights:
            if not self._source.only_cpu:
                device, dtype = self._source.device(self._unit), self._source.dtype(self._unit)
                args, kwargs = move(args, device, dtype), move(kwargs, device, dtype)
            if weights is self._bound:
                return self.inner(*args, **kwargs)
            bound = {parameter: weights[name] for parameter, name in self._names.items()}
            if self._source.is_permanent(self._unit):
                self.inner.load_state_dict(bound, assign=True)
                self._bound = weights
                return self.inner(*args, **kwargs)
            return functional_call(self.inner, bound, args, kwargs)


class LayerModule(UnitModule):
    """A decoder layer: hidden states ``(B, T, D)`` to hidden states, or a tuple that begins with them."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """The original's output; or, for a unit the gate leaves out, the hidden states as they are."""
        gate = self._gate
        if gate.only is None:
            return self._call(hidden_states, *args, **kwargs)
        if gate.only != self._unit:
            passed = hidden_states if gate.hidden is None else gate.hidden
            return (passed,) if gate.returns_tuple else passed
        output = self._call(hidden_states if gate.hidden is None else gate.hidden, *args, **kwargs)
        gate.returns_tuple = isinstance(output, tuple)
        gate.hidden = output[0] if gate.returns_tuple else output
        return output


class HeadModule(UnitModule):
    """The language-model head: ``(B, T, D)`` to logits ``(B, T, V)``."""

    def forward(self, hidden_states: torch.Tensor) -> Any:  # noqa: ANN401
        """The logits; none, ``(B, T, 0)``, where the gate leaves the head out."""
        if self._gate.only not in (None, self._unit):
            return hidden_states.new_empty((*hidden_states.shape[:-1], 0))
        # One token sliced from a prompt keeps the prompt's strides, for which oneDNN copies the whole matrix first.
        return self._call(hidden_states.flatten().view(hidden_states.shape))


class EmbeddingModule(UnitModule):
    """The token embedding: ids ``(B, T)`` to ``(B, T, D)``, from only those rows where the matrix is not resident.

    The result lies on the device of the first layer, so that the model makes its masks and rotary embeddings there.
    """

    def forward(self, input_ids: torch.Tensor) -> Any:  # noqa: ANN401
        """The original's output, computed on the rows that the ids name."""
        if self._gate.in_layer:
            return self._gate.hidden
        ids, weight = self._source.rows(input_ids)
        states = functional_call(self.inner, {"weight": weight}, (ids,))
        return move(states, self._source.device(FIRST_LAYER), self._source.dtype(FIRST_LAYER))


def move(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:  # noqa: ANN401
    """``value`` with every tensor in it on ``device``, through tuples, lists and dicts; other objects as they are.

    Floating-point numbers become ``dtype``, where one is given. The CPU waits for what it gets: it has no stream that
    would.
    """
    if isinstance(value, torch.Tensor):
        kind = dtype if dtype and value.is_floating_point() else value.dtype
        if value.device == device and value.dtype == kind:
            return value
        return value.to(device, kind, non_blocking=device.type != "cpu")
    if isinstance(value, tuple | list):
        return type(value)(move(item, device, dtype) for item in value)
    if isinstance(value, dict):
        return {key: move(item, device, dtype) for key, item in value.items()}
    return value
