"""Attention of a transformers model to a KV cache that keeps fewer bits than the model computes in."""

from __future__ import annotations

from typing import Any

import torch

from llmrun.kernels.attend import attend_one

NAME = "llmrun"


def attends_as_stored(architecture: str) -> bool:
    """Whether a model's attention can be chosen, so that it takes keys and values in the dtype of the cache."""
    import transformers

    model = getattr(transformers, architecture, None)
    return bool(getattr(model, "_supports_attention_backend", False))


def use_grouped_attention(model: Any) -> None:  # noqa: ANN401
    """Let a transformers model that was built for ``sdpa`` attend by this, if its attention can be chosen."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if not model._supports_attention_backend:
        return
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


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
    """``(B, H, T, D)`` over ``(B, H_kv, S, D)`` to ``(B, T, H, D)``; for several tokens as transformers does it.

    Memory: keys and values of the layer once more in the dtype of ``query``, but for one token on the CPU.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    one = query.shape[2] == 1 and attention_mask is None and not dropout and kwargs.get("position_bias") is None
    if one:
        return attend_one(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None
    key, value = key.to(query.dtype), value.to(query.dtype)
    output: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return output
