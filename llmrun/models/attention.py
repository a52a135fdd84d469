"""Attention of a transformers model to a KV cache that keeps fewer bits than the model computes in."""

from __future__ import annotations

from typing import Any

import torch

from llmrun.kernels.attend import attend_as_stored, attend_one

NAME = "llmrun"
UNUSUAL = ("position_bias", "softcap", "s_aux", "cache")
"""What some families hand to attention, which then is more than causal attention to the cache."""


def attends_as_stored(architecture: str) -> bool:
    """Whether a model's attention can be chosen, so that it takes keys and values in the dtype of the cache."""
    import transformers

    model = getattr(transformers, architecture, None)
    return bool(getattr(model, "_supports_attention_backend", False))


def use_grouped_attention(model: Any) -> None:  # noqa: ANN401
    """Let a transformers model that was built for ``sdpa`` attend by this, if its attention can be chosen."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if not model._supports_attention_backend:
        return
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, mask_unless_causal)
    model.set_attn_implementation(NAME)


def mask_unless_causal(**asked: Any) -> torch.Tensor | None:  # noqa: ANN401
    """transformers' mask for ``sdpa``; none where each new token attends to all before it, whatever the cache holds."""
    from transformers.masking_utils import causal_mask_function, sdpa_mask

    plain = asked.get("mask_function") is causal_mask_function and asked.get("attention_mask") is None
    if plain and asked.get("allow_is_causal_skip", True):
        return None
    mask: torch.Tensor | None = sdpa_mask(**asked)
    return mask


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,  # noqa: ANN401
) -> tuple[torch.Tensor, None]:
    """``(B, H, T, D)`` over ``(B, H_kv, S, D)`` to ``(B, T, H, D)``; without a mask the ``T`` end the ``S``, causally.

    Memory: where the kernels do not attend to the cache as it lies, keys and values of the layer once more in the dtype
    of ``query``, but for one token on the CPU; and the mask.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    new, seen = query.shape[2], key.shape[2]
    if attention_mask is None and not dropout and all(kwargs.get(name) is None for name in UNUSUAL):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        attended = attend_one(query, key, value, scale) if new == 1 else attend_as_stored(query, key, value, scale)
        if attended is not None:
            return attended, None
    if attention_mask is None and 1 < new < seen:  # which sdpa takes for a cache that is longer than what it holds
        attention_mask = torch.ones(new, seen, dtype=torch.bool, device=query.device).tril(seen - new)[None, None]
    key, value = key.to(query.dtype), value.to(query.dtype)
    output: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return output
