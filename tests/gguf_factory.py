"""Tiny GGUF files made from tiny transformers models by what llama.cpp's converter does: the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llmrun.formats import FORMATS
from llmrun.quantize.rounding import quantise

BASE: dict[str, Any] = {
    "vocab_size": 288,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rope_theta": 20_000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True, "head_dim": 32}),
    "gemma3": (
        "gemma3_text",
        {"tie_word_embeddings": True, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8},
    ),
    "phi3": ("phi3", {"tie_word_embeddings": False, "sliding_window": None}),
}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def tiny_model(arch: str, **changes: Any) -> Any:
    """A random model whose weights are bf16 numbers, none of them at its initial one or zero."""
    model_type, extra = FAMILIES[arch]
    config = AutoConfig.for_model(model_type, **{**BASE, **extra, **changes})
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
            parameter.copy_(parameter.bfloat16().float())
    return model.eval()


def write_gguf(path: Path, arch: str, model: Any, **options: Any) -> None:
    """``options``: ``kind`` of the matrices, ``tokenizer`` (gpt2 or llama), ``drop`` (a tensor), ``add`` (a key)."""
    writer = gguf.GGUFWriter(path, arch)
    _metadata(writer, model.config)
    (_sentencepiece if options.get("tokenizer") == "llama" else _byte_level)(writer)
    for key, value in options.get("add", {}).items():
        writer.add_uint32(key, value)
    kind = options.get("kind", gguf.GGMLQuantizationType.F32)
    for name, values in gguf_tensors(arch, model).items():
        if name == options.get("drop"):
            continue
        if values.ndim == 2:
            writer.add_tensor(name, packed(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def packed(values: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """A matrix in blocks; those of the K types, which gguf reads but does not make, are ours."""
    if not kind.name.endswith("_K"):
        return gguf.quants.quantize(values, kind)
    return quantise(FORMATS[kind.name], torch.from_numpy(values)).numpy()


def gguf_tensors(arch: str, model: Any) -> dict[str, np.ndarray]:
    """The model's tensors under gguf's own names, permuted and offset as the converter does it."""
    config = model.config
    kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == arch)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    tensors = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            shape = (heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
            values = values.reshape(shape).swapaxes(1, 2).reshape(values.shape)
        if arch == "gemma3" and name.endswith("norm.weight"):
            values = values + 1
        tensors[names.get_name(name, (".weight", ".bias")) or name] = np.ascontiguousarray(values, np.float32)
    return tensors


def _metadata(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    writer.add_key_length(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    if getattr(config, "sliding_window", None) and config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)


def _byte_level(writer: gguf.GGUFWriter) -> None:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = list(bytes_to_unicode().values())
    tokens = [*special, *letters, "ab", *(f"<unused{i}>" for i in range(288 - 4 - len(letters)))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    _ids(writer)
    writer.add_add_bos_token(False)


def _sentencepiece(writer: gguf.GGUFWriter) -> None:
    pieces = ["▁", *"abcdefghijklmnopqrstuvwxyz", "ab", "▁ab"]
    tokens = ["<unk>", "<|im_start|>", "<|im_end|>", *(f"<0x{i:02X}>" for i in range(256)), *pieces]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(pieces))
    _ids(writer)
    writer.add_add_bos_token(True)


def _ids(writer: gguf.GGUFWriter) -> None:
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
