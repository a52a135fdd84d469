"""A model's own attention with a KV cache by the kernels: a few tokens go through in one call.

The call has the products with queries, keys and values, the norms of heads where there are any, rotary embeddings, the
new tokens' place in the cache, attention, and the product with what comes of it. In between these there would be thirty
of torch's operators, with little to do each.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention

from llmrun.kernels.blocks import Heads, Room, attend
from llmrun.kernels.multiply import kernels
from llmrun.kernels.norms import RmsNorm
from llmrun.kernels.own_module import OwnModule, gives, linear_parts, replace_modules, settings_of, takes, with_parts
from llmrun.kernels.packed import PackedWeight, product_of

PARTS = ("q_proj", "k_proj", "v_proj", "o_proj")
NORMS = ("q_norm", "k_norm")
TAKEN = ("hidden_states", "position_embeddings", "past_key_values")
WIDTH, TOKENS = 8, 3
"""Of the states that a module is tried with; its heads stay as they are."""


class CachedAttention(OwnModule):
    """Causal attention of grouped heads with rotary embeddings by halves, in place of a module that is this.

    It takes a cache whose layers tell the ``room`` for so many new tokens, if there is any.
    """

    head_dim: int
    scaling: float
    layer_idx: int

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, Any]:  # noqa: ANN401
        """As transformers' modules: ``hidden_states`` ``(B, T, D)`` to the same, and no weights of attention."""
        if not args and kwargs.get("attention_mask") is None and all(name in kwargs for name in TAKEN):
            attended = self._attend(*(kwargs[name] for name in TAKEN))
            if attended is not None:
                return attended, None
        output: tuple[torch.Tensor, Any] = self._original(*args, **kwargs)
        return output

    def _attend(
        self,
        states: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
        cache: Any,  # noqa: ANN401
    ) -> torch.Tensor | None:
        own = kernels(torch.get_num_threads()) if takes(states) and turns[0].shape[-1] == self.head_dim else None
        heads = self._heads() if own else None
        if own is None or heads is None:
            return None
        room = self._room(cache, heads, states.shape[1])
        return None if room is None else attend(own, states, heads, turns, room)

    def _heads(self) -> Heads | None:
        parts = self._modules
        matrices: list[Any] = [parts[name] for name in PARTS]
        weights = [matrix.weight for matrix in matrices]
        query, key, value, out = map(product_of, weights)
        if not (query and key and value and out):
            return None
        norms: list[Any] = [parts.get(name) for name in NORMS]
        return Heads(
            query,
            key,
            value,
            out,
            self.head_dim,
            self.scaling,
            tuple(matrix.bias for matrix in matrices[:3]),
            tuple(norm and norm.weight for norm in norms),
            norms[0].epsilon if norms[0] else 0.0,
            (_is_paired(weights[0]), _is_paired(weights[1])),
        )

    def _room(self, cache: Any, heads: Heads, tokens: int) -> Room | None:  # noqa: ANN401
        if cache is None:
            keys, values = torch.empty(2, 1, heads.key.rows // self.head_dim, tokens, self.head_dim)
            return Room(keys, values, 0)
        room = getattr(cache.layers[self.layer_idx], "room", None)
        return room(tokens) if room else None


def use_own_attention(model: nn.Module) -> None:
    """Put ``CachedAttention`` in the place of every module of a model that computes what it does."""
    replace_modules(model, _kind, _is_plain, CachedAttention)


def _kind(module: nn.Module) -> Hashable | None:
    return settings_of(module) if _has_parts(module) else None


def _is_paired(weight: torch.Tensor) -> bool:
    return isinstance(weight, PackedWeight) and weight.paired_head_dim is not None


def _has_parts(module: nn.Module) -> bool:
    """Whether there are the matrices, no others, and with them nothing but norms of heads, of both or of neither."""
    matrices, dim = linear_parts(module), vars(module).get("head_dim")
    if set(matrices) != set(PARTS) or not isinstance(dim, int) or not isinstance(vars(module).get("scaling"), float):
        return False
    others = {name: part for name, part in module.named_children() if name not in matrices}
    norms = [part for part in others.values() if isinstance(part, RmsNorm) and part.weight.shape == (dim,)]
    if len(norms) != len(others) or set(others) not in (set(), set(NORMS)) or len({n.epsilon for n in norms}) > 1:
        return False
    rows, kv_rows = (matrices[name].out_features for name in ("q_proj", "k_proj"))
    known = rows % kv_rows == 0 == kv_rows % dim and matrices["v_proj"].out_features == kv_rows and dim % 2 == 0
    return known and matrices["o_proj"].bias is None and not list(module.named_parameters(recurse=False))


def _is_plain(module: Any) -> bool:  # noqa: ANN401
    """Whether it gives what ``CachedAttention`` does, of random states and turns, with matrices that are narrow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts: dict[str, Any] = {}
        for name, matrix in linear_parts(module).items():
            sizes = (matrix.in_features, WIDTH) if name == "o_proj" else (WIDTH, matrix.out_features)
            parts[name] = nn.Linear(*sizes, bias=matrix.bias is not None)
        for name in NORMS:
            if isinstance(norm := module._modules.get(name), RmsNorm):
                parts[name] = RmsNorm(norm, norm.epsilon)
                vars(parts[name])["_parameters"] = {"weight": nn.Parameter(torch.rand(norm.weight.shape) + 0.5)}
        states, turns = torch.randn(1, TOKENS, WIDTH), torch.randn(2, 1, TOKENS, module.head_dim)
        with torch.inference_mode():
            expected = _by_formula(parts, module.head_dim, module.scaling, states, turns)
        trial = with_parts(module, parts)
        asked = {"hidden_states": states, "position_embeddings": (turns[0], turns[1])}
        return gives(trial, expected, **asked, attention_mask=None, past_key_values=None)


def _by_formula(
    parts: dict[str, Any], dim: int, scale: float, states: torch.Tensor, turns: torch.Tensor
) -> torch.Tensor:
    heads = {name: parts[name](states).view(1, TOKENS, -1, dim).transpose(1, 2) for name in PARTS[:3]}
    for name, norm in zip(PARTS, NORMS, strict=False):
        if norm in parts:
            heads[name] = rms_norm(heads[name], (dim,), parts[norm].weight, parts[norm].epsilon)
        x, y = heads[name].chunk(2, dim=-1)
        heads[name] = heads[name] * turns[0] + torch.cat([-y, x], dim=-1) * turns[1]
    query, key, value = heads.values()
    group = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(group, 1) for each in (key, value))
    attended = scaled_dot_product_attention(query, key, value, scale=scale, is_causal=True)
    return linear(attended.transpose(1, 2).flatten(2), parts["o_proj"].weight)
