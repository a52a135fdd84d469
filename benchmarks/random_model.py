"""Write a checkpoint of a real shape with random weights: what it says means nothing, its speed is that of the shape.

    python benchmarks/random_model.py llama2-7b FOLDER --like smollm2:135m       # 13.8 GB

The tokenizer, and with it the vocabulary, is that of --like. Holds one shard (2 GiB) in memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from checkpoint_writer import CheckpointWriter, Noise
from common import gib, model_folder


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama."""

    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    rope_theta: float = 10_000.0

    @property
    def head_dim(self) -> int:
        """Of queries, keys and values."""
        return self.hidden_size // self.n_heads


SHAPES = {
    "tiny": Shape(256, 688, 4, 4, 4),
    "llama2-7b": Shape(4096, 11008, 32, 32, 32),
    "llama2-13b": Shape(5120, 13824, 40, 40, 40),
    "llama3-8b": Shape(4096, 14336, 32, 32, 8, 500_000.0),
    "llama3-70b": Shape(8192, 28672, 80, 64, 8, 500_000.0),
}


def config(shape: Shape, like: dict[str, Any]) -> dict[str, Any]:
    """A Llama config, with the vocabulary and the special tokens of ``like``."""
    names = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    kept: dict[str, Any] = {name: like[name] for name in names if name in like}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
        "tie_word_embeddings": False,
        **kept,
    }


def tensors(shape: Shape, vocab_size: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and random weights, in the order of execution."""
    noise, hidden, inner = Noise(), shape.hidden_size, shape.intermediate_size
    kv = shape.n_kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", noise.tensor(vocab_size, hidden)
    for layer in range(shape.n_layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", torch.ones(hidden)
        for name, rows in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden)):
            yield f"{prefix}.self_attn.{name}_proj.weight", noise.tensor(rows, hidden)
        yield f"{prefix}.post_attention_layernorm.weight", torch.ones(hidden)
        yield f"{prefix}.mlp.gate_proj.weight", noise.tensor(inner, hidden)
        yield f"{prefix}.mlp.up_proj.weight", noise.tensor(inner, hidden)
        yield f"{prefix}.mlp.down_proj.weight", noise.tensor(hidden, inner)
    yield "model.norm.weight", torch.ones(hidden)
    yield "lm_head.weight", noise.tensor(vocab_size, hidden)


def main() -> int:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--like", default="smollm2:135m", metavar="MODEL", help="whose tokenizer (default: %(default)s)"
    )
    args = parser.parse_args()
    like = model_folder(args.like)
    written = config(SHAPES[args.shape], json.loads((like / "config.json").read_text()))
    with CheckpointWriter(args.folder, written, like) as writer:
        for name, tensor in tensors(SHAPES[args.shape], written["vocab_size"]):
            writer.add(name, tensor)
    print(f"{args.folder}: {args.shape}, {gib(writer.nbytes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
