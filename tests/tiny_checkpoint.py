"""Checkpoints of a few kilobytes, written byte by byte: no torch, and broken ones where a test wants them."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIZES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "U8": 1, "I8": 1, "I32": 4, "F8_E4M3": 1, "F8_E5M2": 1}
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]

HIDDEN, INTERMEDIATE, VOCAB = 8, 12, 20
LLAMA_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


def header_of(tensors: Tensors) -> dict[str, Any]:
    """The safetensors header of ``tensors`` (name -> dtype and shape), laid one after another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape) in tensors.items():
        nbytes = SIZES[dtype]
        for extent in shape:
            nbytes *= extent
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + nbytes]}
        position += nbytes
    return header


def shard_bytes(header: bytes, data_nbytes: int, seed: int = 0) -> bytes:
    """A safetensors file with that header and random data."""
    return len(header).to_bytes(8, "little") + header + random.Random(seed).randbytes(data_nbytes)


def write_shard(path: Path, tensors: Tensors, seed: int = 0) -> None:
    """Write ``tensors`` as one safetensors file with random data."""
    header = header_of(tensors)
    data_nbytes = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    path.write_bytes(shard_bytes(json.dumps(header).encode(), data_nbytes, seed))


def llama_tensors(n_layers: int = 2, dtype: str = "BF16", *, head: bool = True) -> dict[str, Any]:
    """Names, dtypes and shapes of a tiny Llama."""
    tensors = {"model.embed_tokens.weight": (dtype, (VOCAB, HIDDEN))}
    for layer in range(n_layers):
        tensors |= {
            f"model.layers.{layer}.self_attn.qkv.weight": (dtype, (HIDDEN * 2, HIDDEN)),
            f"model.layers.{layer}.mlp.up_proj.weight": (dtype, (INTERMEDIATE, HIDDEN)),
            f"model.layers.{layer}.input_layernorm.weight": (dtype, (HIDDEN,)),
        }
    tensors["model.norm.weight"] = (dtype, (HIDDEN,))
    if head:
        tensors["lm_head.weight"] = (dtype, (VOCAB, HIDDEN))
    return tensors


def write_config(folder: Path, **changes: Any) -> None:
    """Write a tiny Llama's config.json; a change to ``...`` leaves the key out."""
    config = {key: value for key, value in (LLAMA_CONFIG | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))


def write_checkpoint(folder: Path, tensors: Tensors | None = None, **changes: Any) -> Path:
    """A folder with config.json and one model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, **changes)
    write_shard(folder / "model.safetensors", llama_tensors() if tensors is None else tensors)
    return folder


def write_sharded(folder: Path, shards: Mapping[str, Tensors], **changes: Any) -> Path:
    """A folder with config.json, several shards and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, **changes)
    for seed, (file, tensors) in enumerate(shards.items()):
        write_shard(folder / file, tensors, seed)
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder
