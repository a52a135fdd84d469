"""Causal attention of the newest tokens to a KV cache in any dtype, each group of heads at once.

The kernels read the cache as it lies. Without them, a single token attends to all that the cache shows it, so it needs
no mask, and the heads of a group may as well be queries of one head (grouped-query attention, Ainslie et al. 2023):
keys and values are read once for a group. torch's own ``enable_gqa`` reads them once for a head on the CPU, 10 times
slower over 4,096 tokens (32 heads in 8 groups).
"""

from __future__ import annotations

import torch

from llmrun.kernels.multiply import kernels


def attend_as_stored(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor | None:
    """``(B, H, T, D)`` over ``(B, H_kv, S, D)`` that the ``T`` tokens end, to ``(B, T, H, D)``, fp32.

    ``None`` where the kernels were not built or do not compute this.

    Memory: the result, and half a megabyte for each thread.
    """
    own = kernels(torch.get_num_threads()) if query.device.type == "cpu" and query.dtype == torch.float32 else None
    if own is None or len(query) > 1 or key.shape != value.shape:
        return None
    return own.attention(query[0], key[0], value[0], scale).transpose(0, 1)[None]


def attend_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """``(B, H, 1, D)`` over ``(B, H_kv, S, D)`` to ``(B, 1, H, D)`` in the dtype of ``query``.

    Memory: keys and values once more in that dtype, but where the kernels read them as they are.
    """
    attended = attend_as_stored(query, key, value, scale)
    if attended is not None:
        return attended
    batch, n_heads, _, head_dim = query.shape
    groups = query.reshape(batch, key.shape[1], -1, head_dim)
    key, value = key.to(query.dtype), value.to(query.dtype)
    attended = torch.nn.functional.scaled_dot_product_attention(groups, key, value, scale=scale)
    return attended.reshape(batch, 1, n_heads, value.shape[-1])
