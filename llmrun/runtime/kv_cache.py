"""The KV cache: allocated for the asked context, never grown by concatenation.

It is a transformers ``Cache``, so the model's own attention code and masks use it as they are. All layers share one
position, the number of tokens before the pass (or before the chunk, where a long prompt goes through layer by layer).

A layer's keys and values live on the device that computes it for a token. Where a prefill computes it on another one
they visit there for the layer's turn, one layer at a time: what is held goes, what is new comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from llmrun.checkpoint.spec import ModelSpec, UnitKind, UnitSpec
from llmrun.hardware.buffer import allocate
from llmrun.kernels.blocks import Room
from llmrun.models.attention import attends_as_stored
from llmrun.models.dtypes import cache_dtype, compute_dtype
from llmrun.planner.memory import kv_capacity_tokens, visit_bytes
from llmrun.planner.plan import CPU, Plan
from llmrun.runtime.accelerator import Accelerator
from llmrun.runtime.views import as_tensor
from llmrun.settings import Workload


@dataclass
class Position:
    """How many tokens are in the cache before the pass.

    ``kept``: a position that it has to be possible to go back to; ``None``: none before the pass.
    ``as_stored``: keys and values are handed out in the dtype that they are kept in, not in that of the new ones.
    """

    tokens: int = 0
    kept: int | None = None
    as_stored: bool = True


class FullLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of a layer that attends to the whole context, ``(B, H_kv, capacity, D_head)`` each.

    ``keys`` and ``values`` are what the computation works on: those at home, on ``device``, or guests in a visit.
    """

    is_sliding = False

    def __init__(self, capacity_tokens: int, position: Position, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.capacity_tokens = capacity_tokens
        self.position = position
        self.home: tuple[torch.Tensor, ...] = ()
        self._device = device
        self._room: torch.Tensor | None = None  # bytes on another device, during a visit
        self._base = 0  # position of the token at index 0
        self._end = 0  # index after the last token written

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate at home; pages are touched as tokens come."""
        self.home = tuple(
            _empty((*states.shape[:2], self.capacity_tokens, states.shape[-1]), self.dtype, self._device)
            for states in (key_states, value_states)
        )
        self.keys, self.values = self.home if self._room is None else self._guests(self._room)
        self.is_initialized = True

    @contextmanager
    def visit(self, room: torch.Tensor) -> Iterator[None]:
        """Work in ``room``, bytes on another device; afterwards home holds all of it, even after a failure."""
        start, base = self.position.tokens, self._base
        self._room, self._end = room, start - base
        if self.is_initialized:
            self.keys, self.values = self._guests(room)
            held = slice(self._first(start) - base, start - base)
            _copy(self.home, (self.keys, self.values), held)
        try:
            yield
        finally:
            if self.is_initialized:
                moved = self._base != base  # a window that moved to the front has changed the old tokens' places too
                _copy((self.keys, self.values), self.home, slice(0 if moved else start - base, self._end))
                self.keys, self.values = self.home
            self._room = None

    def _guests(self, room: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys and values as those at home, laid one after the other into ``room``."""
        guests, offset = [], 0
        for memory in self.home:
            guests.append(room[offset : offset + memory.nbytes].view(memory.dtype).view(memory.shape))
            offset += memory.nbytes
        return tuple(guests)

    def _first(self, position: int) -> int:
        """Position of the first token that the one at ``position`` attends to."""
        return 0

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append ``(B, H_kv, T, D_head)`` and return all that the new tokens attend to, views where they may be."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new_tokens = key_states.shape[-2]
        room = self._take(new_tokens)
        end = room.past + new_tokens
        room.keys[:, :, room.past : end] = key_states
        room.values[:, :, room.past : end] = value_states
        dtype = self.dtype if self.position.as_stored else key_states.dtype
        return room.keys[:, :, :end].to(dtype), room.values[:, :, :end].to(dtype)

    def room(self, new_tokens: int) -> Room | None:
        """Where keys and values of so many tokens are to go, for those who put them there; ``None`` before the first.

        The tokens count as there.
        """
        return self._take(new_tokens) if self.is_initialized else None

    def _take(self, new_tokens: int) -> Room:
        first, begin = self.place(new_tokens)
        self._end = begin + new_tokens
        return Room(self.keys[:, :, first:], self.values[:, :, first:], begin - first)

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

    def gather(self, start: int, places: Sequence[int]) -> None:
        """Let the tokens at ``places``, which go up from ``start`` on or later, come to ``start`` and after it."""
        for memory in (self.keys, self.values):
            memory[:, :, start : start + len(places)] = memory[:, :, list(places)]


class SlidingLayer(FullLayer):
    """A layer with a sliding window: the last tokens move to the front when the end of its memory is reached."""

    is_sliding = True

    def __init__(
        self, capacity_tokens: int, window_tokens: int, position: Position, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(capacity_tokens, position, device, dtype)
        self.window_tokens = window_tokens

    def place(self, new_tokens: int) -> tuple[int, int]:
        """Index of the first token attended to, and of the first new one."""
        position = self.position.tokens
        first = self._first(position)
        assert first >= self._base, "the engine starts over where the window has moved on"
        if position + new_tokens - self._base > self.capacity_tokens:
            self._move(first if self.position.kept is None else self._first(self.position.kept), position)
            assert position + new_tokens - self._base <= self.capacity_tokens, "drafts are no longer than a chunk"
        return first - self._base, position - self._base

    def _move(self, first: int, end: int) -> None:
        """Bring the tokens from position ``first`` to ``end`` to the front."""
        for memory in (self.keys, self.values):
            memory[:, :, : end - first] = memory[:, :, first - self._base : end - self._base].clone()
        self._base = first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Tokens attended to by the last query, and the position of the first of them."""
        first = self._first(self.position.tokens)
        return self.position.tokens + query_length - first, first

    def keeps(self, tokens: int) -> bool:
        """Whether what the window at ``tokens`` needs is still there; at 0 the layer simply starts over."""
        if tokens == 0:
            self._base = 0
        return self._first(tokens) >= self._base

    def _first(self, position: int) -> int:
        return max(0, position - (self.window_tokens - 1))


class KVCache(Cache):  # type: ignore[misc]
    """The cache of one conversation and the tokens it holds.

    Memory: the layers' own, each on the device that computes it for a token, as passes come; and on every GPU that
    computes others in a prefill, allocated here, a room for the largest of those.
    """

    def __init__(self, spec: ModelSpec, plan: Plan, accelerators: Mapping[str, Accelerator]) -> None:
        self.position = Position(as_stored=attends_as_stored(spec.architecture))
        self.tokens: list[int] = []
        self._home_of = {p.unit: p.device for p in plan.placements}
        self._layers: dict[str, FullLayer] = {}
        for unit in spec.units:
            if unit.kind is UnitKind.LAYER:
                home = self._home_of[unit.name]
                device = torch.device("cpu") if home == CPU else accelerators[home].device
                dtype = cache_dtype(spec) if home == CPU else compute_dtype(spec, home)
                self._layers[unit.name] = _layer(unit, plan.workload, self.position, device, dtype)
        super().__init__(layers=list(self._layers.values()))
        rooms = {name: visit_bytes(name, spec, plan.workload, plan.placements) for name in accelerators}
        self._rooms = {name: accelerators[name].allocate(nbytes) for name, nbytes in rooms.items() if nbytes}

    def visit(self, unit: str, device: str) -> AbstractContextManager[None]:
        """Let the keys and values of a unit be on ``device``; nothing moves where they live there or it has none."""
        if unit not in self._layers or device == self._home_of[unit]:
            return nullcontext()
        return self._layers[unit].visit(self._rooms[device])

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

    @property
    def branches(self) -> bool:
        """Whether tokens of a pass may be those of a tree: the model takes any mask, and no window moves."""
        return self.position.as_stored and not any(layer.is_sliding for layer in self.layers)

    @property
    def room_tokens(self) -> int:
        """Tokens that there is room for yet."""
        capacity_tokens: int = min(layer.get_max_length() for layer in self.layers)
        return capacity_tokens - len(self.tokens)

    @contextmanager
    def drafting(self) -> Iterator[None]:
        """Passes within may append up to a chunk of tokens, one after the other; at the end they are all taken back.

        Windows that move in between keep what the tokens before attend to.
        """
        start = self.position.kept = len(self.tokens)
        try:
            yield
        finally:
            self.position.kept = None
            self.rewind(start)

    def rewind(self, tokens: int) -> None:
        """Forget all but the first ``tokens`` tokens, at least one more than there were before the last pass.

        Fewer only where every layer ``keeps`` them. A window never loses what it needs for that: when a pass moves it,
        all that the first of the pass attends to stays.
        """
        del self.tokens[tokens:]
        self.position.tokens = tokens

    def keep(self, start: int, path: Sequence[int]) -> None:
        """Forget what came after the first ``start`` tokens, but for those at ``path``: places from there on, going up.

        They come one after the other. Others than the first few only where the cache ``branches``.
        """
        places = [start + step for step in path]
        first = next((i for i, place in enumerate(places, start) if i != place), None)
        if first is not None:
            assert self.branches, "in a chain what is kept comes first"
            moved = places[first - start :]
            for layer in self.layers:
                layer.gather(first, moved)
            self.tokens[first : first + len(moved)] = [self.tokens[place] for place in moved]
        self.rewind(start + len(places))

    def append(self, tokens: Sequence[int]) -> None:
        """The pass over ``tokens`` is complete in every layer."""
        self.tokens.extend(tokens)
        self.position.tokens = len(self.tokens)


def _layer(
    unit: UnitSpec, workload: Workload, position: Position, device: torch.device, dtype: torch.dtype
) -> FullLayer:
    capacity, window = kv_capacity_tokens(unit, workload), unit.kv_window_tokens
    if window is None or window >= workload.context_tokens:
        return FullLayer(capacity, position, device, dtype)
    return SlidingLayer(capacity, window, position, device, dtype)


def _empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Memory of its own, so that only the pages of tokens that came are ever resident.

    From the heap it would get what freed activations left, whose pages are resident, and keep the heap from shrinking.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return as_tensor(allocate(prod(shape) * dtype.itemsize, huge_pages=False)).view(dtype).view(shape)


def _copy(sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], tokens: slice) -> None:
    for source, target in zip(sources, targets, strict=True):
        target[:, :, tokens].copy_(source[:, :, tokens])
