"""Models of real shapes without any weights: what a planner is asked about, made in milliseconds.

A Llama is written as config.json, index and safetensors headers and read back by the code that reads real ones; the
mixture of experts and the hybrid, which llmrun cannot run yet, are numbers only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from pathlib import Path

from llmrun.checkpoint import HeadersOnly, ModelSpec, TensorSpec, UnitKind, UnitSpec, spec_from_headers

SHARD_BYTES = 5_000_000_000  # what checkpoints on the hub are cut at
BF16_BYTES = 2
Tensors = list[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama, or of what is near enough: biases and norms of heads are left out, a few KiB a layer."""

    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    context_tokens: int
    tied: bool = False
    own_head_dim: int | None = None  # where it is not hidden_size / n_heads

    @property
    def head_dim(self) -> int:
        return self.own_head_dim or self.hidden_size // self.n_heads

    def config(self) -> dict[str, object]:
        """What config.json says."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "bfloat16",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.context_tokens,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": self.tied,
        }

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes in the order of execution."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        yield "model.embed_tokens.weight", (self.vocab_size, hidden)
        for layer in range(self.n_layers):
            prefix = f"model.layers.{layer}"
            yield f"{prefix}.input_layernorm.weight", (hidden,)
            for name, rows in (("q", queries), ("k", keys), ("v", keys)):
                yield f"{prefix}.self_attn.{name}_proj.weight", (rows, hidden)
            yield f"{prefix}.self_attn.o_proj.weight", (hidden, queries)
            yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
            yield f"{prefix}.mlp.gate_proj.weight", (inner, hidden)
            yield f"{prefix}.mlp.up_proj.weight", (inner, hidden)
            yield f"{prefix}.mlp.down_proj.weight", (hidden, inner)
        yield "model.norm.weight", (hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocab_size, hidden)


SHAPES: Mapping[str, Shape] = {  # from the config.json of each
    "SmolLM2-135M": Shape(576, 1536, 30, 9, 3, 49152, 8192, tied=True),
    "SmolLM2-inflated": Shape(576, 60000, 38, 9, 3, 49152, 8192, tied=True),  # 8 GB: larger than a small machine's RAM
    "Llama-3.2-1B": Shape(2048, 8192, 16, 32, 8, 128256, 131072, tied=True),
    "Llama-3.2-3B": Shape(3072, 8192, 28, 24, 8, 128256, 131072, tied=True),
    "Llama-2-7B": Shape(4096, 11008, 32, 32, 32, 32000, 4096),
    "Llama-3.1-8B": Shape(4096, 14336, 32, 32, 8, 128256, 131072),
    "Llama-2-13B": Shape(5120, 13824, 40, 40, 40, 32000, 4096),
    "Qwen3-32B": Shape(5120, 25600, 64, 64, 8, 151936, 40960, own_head_dim=128),
    "Llama-3.1-70B": Shape(8192, 28672, 80, 64, 8, 128256, 131072),
    "Llama-3.1-405B": Shape(16384, 53248, 126, 128, 8, 128256, 131072),
}


def headers(name: str, shard_bytes: int = SHARD_BYTES) -> HeadersOnly:
    """The checkpoint of a row of ``SHAPES``: config, index and headers, in shards of about ``shard_bytes``."""
    shape = SHAPES[name]
    shards = list(_shards(shape.tensors(), shard_bytes))
    if len(shards) == 1:
        files = {"model.safetensors": shards[0]}
    else:
        files = {f"model-{n:05}-of-{len(shards):05}.safetensors": part for n, part in enumerate(shards, start=1)}
    beginnings = {"config.json": json.dumps(shape.config()).encode()}
    sizes = {}
    for file, tensors in files.items():
        beginnings[file], sizes[file] = _header(tensors)
    if len(shards) > 1:
        weight_map = {tensor: file for file, tensors in files.items() for tensor, _ in tensors}
        beginnings["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    return HeadersOnly(f"shape://{name}", beginnings, sizes)


def spec_of(name: str) -> ModelSpec:
    """A row of ``SHAPES`` as the reader of checkpoints sees it."""
    return spec_from_headers(headers(name), name=name)


def smollm2_135m() -> ModelSpec:
    return spec_of("SmolLM2-135M")


def inflated() -> ModelSpec:
    return spec_of("SmolLM2-inflated")


def llama2_7b() -> ModelSpec:
    return spec_of("Llama-2-7B")


def llama_8b() -> ModelSpec:
    return spec_of("Llama-3.1-8B")


def llama_70b() -> ModelSpec:
    return spec_of("Llama-3.1-70B")


def llama_405b() -> ModelSpec:
    return spec_of("Llama-3.1-405B")


def mixture_of_experts(n_layers: int = 24, n_experts: int = 16, n_active: int = 2) -> ModelSpec:
    """Every second layer holds experts: unequal layers that compute with fewer weights than they hold."""
    base = spec_of("Llama-3.1-8B")
    layers = base.units[2 : 2 + n_layers]
    dense_mlp = 3 * base.hidden_size * base.intermediate_size
    return _with_layers(
        base,
        "mixture",
        [
            _resized(unit, unit.nbytes + extra * BF16_BYTES, unit.flops_per_token + used * 2)
            for n, unit in enumerate(layers)
            for extra, used in [((n_experts - 1) * dense_mlp, (n_active - 1) * dense_mlp) if n % 2 else (0, 0)]
        ],
    )


def hybrid(n_layers: int = 36) -> ModelSpec:
    """Every fourth layer attends and keeps keys and values; the others are larger and keep none."""
    base = spec_of("Llama-3.1-8B")
    template = base.units[2]
    layers = []
    for n in range(n_layers):
        unit = replace(template, name=f"layer {n}", layer=n)
        grown = replace(_resized(unit, unit.nbytes * 3 // 2, unit.flops_per_token * 3 // 2), kv_bytes_per_token=0)
        layers.append(unit if n % 4 == 3 else grown)
    return _with_layers(base, "hybrid", layers)


def write_sparse(name: str, folder: Path) -> Path:
    """A row of ``SHAPES`` as a folder whose weights are holes: real sizes, a few hundred kilobytes on the disk."""
    files = headers(name)
    folder.mkdir(parents=True, exist_ok=True)
    for file, beginning in files.beginnings.items():
        path = folder / file
        path.write_bytes(beginning)
        os.truncate(path, files.nbytes(file))
    return folder


def _shards(tensors: Iterator[tuple[str, tuple[int, ...]]], shard_bytes: int) -> Iterator[Tensors]:
    shard: Tensors = []
    total = 0
    for name, shape in tensors:
        nbytes = prod(shape) * BF16_BYTES
        if shard and total + nbytes > shard_bytes:
            yield shard
            shard, total = [], 0
        shard.append((name, shape))
        total += nbytes
    yield shard


def _header(tensors: Tensors) -> tuple[bytes, int]:
    """The beginning of a safetensors file up to its data, and the length of the whole file."""
    ends = [0]
    for _, shape in tensors:
        ends.append(ends[-1] + prod(shape) * BF16_BYTES)
    table = {
        name: {"dtype": "BF16", "shape": shape, "data_offsets": span}
        for (name, shape), span in zip(tensors, pairwise(ends), strict=True)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}} | table).encode()
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + ends[-1]


def _resized(unit: UnitSpec, nbytes: int, flops_per_token: int) -> UnitSpec:
    """The unit with one tensor of that size in a file of its own."""
    tensor = TensorSpec(unit.name, f"{unit.name}.safetensors", 0, nbytes, "BF16", (nbytes // BF16_BYTES, 1))
    return replace(unit, tensors=(tensor,), flops_per_token=flops_per_token)


def _with_layers(base: ModelSpec, name: str, layers: list[UnitSpec]) -> ModelSpec:
    others = [unit for unit in base.units if unit.kind is not UnitKind.LAYER]
    units = (*others[:2], *layers, others[2])
    return replace(base, name=name, folder=f"shape://{name}", n_layers=len(layers), units=units)
