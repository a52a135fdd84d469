"""The KV cache: allocated for the asked context, never grown by concatenation.

It is a transformers ``Cache``, so the model's own attention code and masks use it as they are. All layers share one
position, the number of tokens before the pass (or before the chunk, where a long prompt goes through layer by layer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from llmrun.checkpoint.spec import ModelSpec, UnitKind
from llmrun.planner.memory import kv_capacity_tokens
from llmrun.settings import Workload


@dataclass
class Position:
    """How many tokens are in the cache before the pass."""

    tokens: int = 0


class FullLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of a layer that attends to the whole context, ``(B, H_kv, capacity, D_head)`` each."""

    is_sliding = False

    def __init__(self, capacity_tokens: int, position: Position) -> None:
        super().__init__()
        self.capacity_tokens = capacity_tokens
        self.position = position

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate, on the device that computes the layer; pages are touched as tokens come."""
        self.keys, self.values = (
            torch.empty(
                (*states.shape[:2], self.capacity_tokens, states.shape[-1]), dtype=states.dtype, device=states.device
            )
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append ``(B, H_kv, T, D_head)`` and return views of all that the new tokens attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        first, begin = self.place(key_states.shape[-2])
        end = begin + key_states.shape[-2]
        self.keys[:, :, begin:end] = key_states
        self.values[:, :, begin:end] = value_states
        return self.keys[:, :, first:end], self.values[:, :, first:end]

    def place(self, new_tokens: int) -> tuple[int, int]:
        """Index of the first token attended to, and of the first new one."""
        assert self.position.tokens + new_tokens <= self.capacity_tokens, "the engine keeps within the context"
        return 0, self.position.tokens

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Tokens attended to by the last query, and the position of the first of them."""
        return self.position.tokens + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens before the pass."""
        return self.position.tokens

    def get_max_length(self) -> int:
        """Tokens that fit."""
        return self.capacity_tokens

    def keeps(self, tokens: int) -> bool:
        """Whether a pass may go on after the first ``tokens`` tokens."""
        return True


class SlidingLayer(FullLayer):
    """A layer with a sliding window: the last tokens move to the front when the end of its memory is reached."""

    is_sliding = True

    def __init__(self, capacity_tokens: int, window_tokens: int, position: Position) -> None:
        super().__init__(capacity_tokens, position)
        self.window_tokens = window_tokens
        self._base = 0  # position of the token at index 0

    def place(self, new_tokens: int) -> tuple[int, int]:
        """Index of the first token attended to, and of the first new one."""
        position = self.position.tokens
        first = position - self._past(position)
        assert first >= self._base, "the engine starts over where the window has moved on"
        if position + new_tokens - self._base > self.capacity_tokens:
            for memory in (self.keys, self.values):
                kept = memory[:, :, first - self._base : position - self._base].clone()
                memory[:, :, : position - first] = kept
            self._base = first
        return first - self._base, position - self._base

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Tokens attended to by the last query, and the position of the first of them."""
        past = self._past(self.position.tokens)
        return past + query_length, self.position.tokens - past

    def keeps(self, tokens: int) -> bool:
        """Whether what the window at ``tokens`` needs is still there; at 0 the layer simply starts over."""
        if tokens == 0:
            self._base = 0
        return tokens - self._past(tokens) >= self._base

    def _past(self, position: int) -> int:
        return min(position, self.window_tokens - 1)


class KVCache(Cache):  # type: ignore[misc]
    """The cache of one conversation and the tokens it holds."""

    def __init__(self, spec: ModelSpec, workload: Workload) -> None:
        self.position = Position()
        layers: list[FullLayer] = []
        for unit in spec.units:
            if unit.kind is UnitKind.LAYER:
                capacity = kv_capacity_tokens(unit, workload)
                window = unit.kv_window_tokens
                layers.append(
                    FullLayer(capacity, self.position)
                    if window is None or window >= workload.context_tokens
                    else SlidingLayer(capacity, window, self.position)
                )
        super().__init__(layers=layers)
        self.tokens: list[int] = []

    def reuse(self, prompt: Sequence[int]) -> int:
        """Keep the common prefix with ``prompt``, less its last token, whose logits are needed; returns its length."""
        common = 0
        for ours, theirs in zip(self.tokens, prompt[:-1], strict=False):
            if ours != theirs:
                break
            common += 1
        if not all(layer.keeps(common) for layer in self.layers):
            common = 0
            for layer in self.layers:
                layer.keeps(0)
        self.rewind(common)
        return common

    def rewind(self, tokens: int) -> None:
        """Forget all but the first ``tokens`` tokens."""
        del self.tokens[tokens:]
        self.position.tokens = tokens

    def append(self, tokens: Sequence[int]) -> None:
        """The pass over ``tokens`` is complete in every layer."""
        self.tokens.extend(tokens)
        self.position.tokens = len(self.tokens)
