"""What a config.json leaves unsaid: names that differ between families, and defaults of transformers' classes.

Data only. A family that is not listed follows ``Family()``; its windows are then full attention unless config.json
lists ``layer_types``, which can only make the KV cache larger than needed, never too small.
Source: ``transformers/models/*/configuration_*.py`` of transformers 5.23.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Defaults of a ``model_type`` for keys that config.json lacks."""

    tied: bool | None = None  # None: tied if the checkpoint has no head of its own
    head_dim: int | None = None  # None: hidden_size / n_heads
    n_kv_heads: int | None = None  # None: n_heads
    sliding_window: int | None = None
    window_on_all: bool = False  # sliding_window holds on every layer
    window_pattern: int | None = None  # every n-th layer is full attention, the others slide
    window_after: int | None = None  # layers from this one on slide, if use_sliding_window


FAMILIES = {
    "bloom": Family(tied=True),
    "cohere": Family(tied=True),
    "cohere2": Family(tied=True, sliding_window=4096, window_pattern=4),
    "falcon": Family(tied=True),
    "gemma": Family(tied=True, head_dim=256, n_kv_heads=16),
    "gemma2": Family(tied=True, head_dim=256, n_kv_heads=4, sliding_window=4096, window_pattern=2),
    "gemma3_text": Family(tied=True, head_dim=256, n_kv_heads=4, sliding_window=4096, window_pattern=6),
    "gpt2": Family(tied=True),
    "mistral": Family(n_kv_heads=8, sliding_window=4096, window_on_all=True),
    "mpt": Family(tied=True),
    "olmo3": Family(sliding_window=4096, window_pattern=4),
    "opt": Family(tied=True),
    "phi3": Family(window_on_all=True),
    "qwen2": Family(n_kv_heads=32, sliding_window=4096, window_after=28),
    "qwen3": Family(n_kv_heads=32, head_dim=128, sliding_window=4096, window_after=28),
    "starcoder2": Family(tied=True, n_kv_heads=2, window_on_all=True),
}

# checkpoints of these families carry an auto_map of old, but transformers has classes of its own for them
NATIVE_FAMILIES = frozenset(FAMILIES) | {
    "codegen", "exaone4", "glm", "glm4", "gpt_bigcode", "gpt_neox", "gptj", "granite", "helium", "llama", "nemotron",
    "olmo", "olmo2", "persimmon", "phi", "smollm3", "stablelm",
}  # fmt: skip

# the part of a tensor's name before ".weight"
EMBEDDING_NAMES = frozenset({"embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings"})
HEAD_NAMES = frozenset({"lm_head", "embed_out", "output"})

# buffers of older releases, computed at start today: transformers ignores them
IGNORED_SUFFIXES = ("rotary_emb.inv_freq", "masked_bias", "position_ids")
CAUSAL_MASK_SUFFIXES = ("attn.bias", "attention.bias")  # with four dimensions; a real bias has one

EXPERT_COUNT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts")
EXPERT_TENSOR_PARTS = (".experts.", ".block_sparse_moe.")
RECURRENT_FAMILIES = frozenset({"rwkv", "xlstm", "recurrent_gemma"})
RECURRENT_KEYS = (
    "mamba_d_state", "ssm_cfg", "state_size", "layers_block_type", "hybrid_override_pattern", "block_types",
    "attn_layer_period", "linear_num_value_heads", "conv_L_cache",
)  # fmt: skip
MULTIMODAL_KEYS = ("text_config", "vision_config", "audio_config")

ALTERNATIVE_KEYS = {
    "n_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "n_heads": ("num_attention_heads", "n_head", "n_heads"),
    "n_kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "context_tokens": ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length"),
}
