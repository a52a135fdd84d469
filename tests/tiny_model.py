"""Tiny random models of real families, written as transformers writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

VOCAB_SIZE = 131
_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True)
class Family:
    """A kind of model: the transformers config class and what differs from the small Llama."""

    name: str
    config: str
    options: dict[str, Any]

    def build(self, **changes: Any) -> Any:
        torch.manual_seed(7)
        config = getattr(transformers, self.config)(**{**_SMALL, **self.options, **changes})
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if "norm" in name:  # all ones, they would hide a norm that was mixed up with another
                torch.nn.init.normal_(parameter, 1.0, 0.1)
        return model.eval()


FAMILIES = {
    family.name: family
    for family in (
        Family("llama", "LlamaConfig", {"tie_word_embeddings": False}),
        Family("llama-tied", "LlamaConfig", {"tie_word_embeddings": True, "attention_bias": True}),
        Family("qwen2", "Qwen2Config", {"tie_word_embeddings": True}),
        Family(
            "qwen2-sliding",
            "Qwen2Config",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3, "tie_word_embeddings": False},
        ),
        Family("qwen3", "Qwen3Config", {"head_dim": 16, "tie_word_embeddings": False}),
        Family("gemma3", "Gemma3TextConfig", {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16}),
        Family("phi3", "Phi3Config", {"sliding_window": 8, "tie_word_embeddings": False}),
        Family("mistral", "MistralConfig", {"sliding_window": 8, "tie_word_embeddings": False}),
        Family("gpt-neox", "GPTNeoXConfig", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
        Family(
            "gpt2",
            "GPT2Config",
            {"n_embd": 32, "n_layer": 6, "n_head": 4, "n_positions": 256, "num_key_value_heads": 4},
        ),
    )
}


def save(model: Any, folder: Path, *, dtype: torch.dtype = torch.float32, shard: str = "1GB") -> Path:
    """Write a checkpoint; ``shard`` is the largest size of a file."""
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


def reference_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def some_tokens(count: int, seed: int = 3) -> list[int]:
    return torch.randint(3, VOCAB_SIZE, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def say_only(model: Any, token: int, other: int) -> Any:
    """Make a model answer with these two tokens, one or the other, for ever and whatever it is asked."""
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        direction = torch.randn(head.shape[1])
        head.zero_()
        head[token], head[other] = direction, -direction
    return model
