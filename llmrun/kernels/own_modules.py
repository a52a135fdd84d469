"""All modules of llmrun's own that a model can have in place of its own ones."""

from __future__ import annotations

from torch import nn

from llmrun.kernels.cached_attention import use_own_attention
from llmrun.kernels.gated_mlp import use_own_mlps
from llmrun.kernels.norms import use_own_norms


def use_own_modules(model: nn.Module) -> None:
    """Put them in the place of every module, in fp32 on the CPU, that computes what one of them does."""
    use_own_norms(model)  # first: attention is known by its norms too
    use_own_mlps(model)
    use_own_attention(model)
