"""Rewrite a small Llama so that it says the same and its weights lie on no grid of few bits.

    python benchmarks/off_grid.py smollm2:135m FOLDER

Models that were imported from a 4-bit file are no evidence for what rounding to 4 bits costs: their weights lie on that
file's grid, and come back from it as they were. Here every channel of the residual stream that a matrix of a layer
reads is scaled, what feeds it (the norm before it, v_proj, up_proj) by the inverse: the function is the same but for
rounding, and each column has a scale of its own, as in weights that were trained. Factors are 0.8 to 1.25.

For untied or tied decoders with the tensors of Llama (Llama, Mistral, SmolLM2).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from common import model_folder

WIDEST = math.log(1.25)
Model = Any  # a class of transformers, which has no types


def factors(count: int, generator: torch.Generator) -> torch.Tensor:
    """Of so many channels."""
    return (torch.rand(count, generator=generator) * 2 * WIDEST - WIDEST).exp()


def rescale(layer: Model, groups: int, head_dim: int, generator: torch.Generator) -> None:
    """One decoder layer, in place; ``groups`` query heads share a head of keys and values."""
    attention, mlp = layer.self_attn, layer.mlp
    for norm, readers in (
        (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
        (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
    ):
        by = factors(norm.weight.numel(), generator)
        norm.weight.data /= by
        for reader in readers:
            reader.weight.data *= by
    by = factors(attention.v_proj.out_features, generator)
    attention.v_proj.weight.data /= by[:, None]
    attention.o_proj.weight.data *= by.view(-1, 1, head_dim).expand(-1, groups, -1).reshape(-1)
    by = factors(mlp.up_proj.out_features, generator)
    mlp.up_proj.weight.data /= by[:, None]
    mlp.down_proj.weight.data *= by


@torch.inference_mode()
def main() -> None:
    """Load, rescale, check, save in fp32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder(args.model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.arange(40).view(1, -1) * 97 % model.config.vocab_size
    before = model(input_ids=tokens).logits
    config, generator = model.config, torch.Generator().manual_seed(7)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for layer in model.model.layers:
        rescale(layer, config.num_attention_heads // config.num_key_value_heads, head_dim, generator)
    change = float((model(input_ids=tokens).logits - before).abs().max())
    print(f"largest change of a logit in fp32: {change:.2g}")
    model = model.to(torch.bfloat16)
    model.save_pretrained(args.target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(args.target)
    print(f"wrote {args.target} in bf16")


if __name__ == "__main__":
    main()
