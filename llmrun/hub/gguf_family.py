"""Families of models in GGUF files: their metadata as a transformers config, their tensors under transformers' names.

llama.cpp's converter is the reference for both (``convert_hf_to_gguf.py`` and ``gguf-py/gguf/constants.py`` of
https://github.com/ggml-org/llama.cpp): what it renames, offsets or permutes is undone here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmrun.errors import CheckpointError
from llmrun.hub.gguf_header import GgufHeader

_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_SANDWICH_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_APART = ("attn_q", "attn_k", "attn_v", "ffn_gate")  # what a family with fused matrices does not have
_FUSED = {name: ours for name, ours in _LAYER.items() if name not in _APART} | {
    "attn_qkv": "self_attn.qkv_proj",
    "ffn_up": "mlp.gate_up_proj",
}

# frequency factors: they become part of the config, not weights
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")

_CONFIG = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}


@dataclass(frozen=True)
class Family:
    """What llama.cpp does to one family."""

    model_type: str
    architecture: str
    layer: Mapping[str, str] = field(default_factory=lambda: _LAYER)
    norms_plus_one: bool = False  # its norms are stored as w + 1
    rotary_pairs: bool = False  # rows of q and k are stored as pairs (x0 y0 x1 y1), not as halves


_FAMILIES = {
    "llama": Family("llama", "LlamaForCausalLM", rotary_pairs=True),
    "qwen2": Family("qwen2", "Qwen2ForCausalLM"),
    "qwen3": Family("qwen3", "Qwen3ForCausalLM", _LAYER | _HEAD_NORMS),
    "gemma3": Family("gemma3_text", "Gemma3ForCausalLM", _LAYER | _HEAD_NORMS | _SANDWICH_NORMS, norms_plus_one=True),
    "phi3": Family("phi3", "Phi3ForCausalLM", _FUSED),
}


def family_of(header: GgufHeader) -> Family:
    """The family of a file.

    Raises:
        CheckpointError: ``gguf-unsupported``: not one of ours, a mixture of experts, or one part of several.
    """
    name = header.architecture
    if name not in _FAMILIES:
        raise _unsupported(header, f"holds a model of the family {name!r}")
    if header.metadata.get(f"{name}.expert_count"):
        raise _unsupported(header, "holds a mixture of experts")
    if int_or(header.metadata.get("split.count"), 1) > 1:
        raise CheckpointError(
            "gguf-unsupported",
            f"{header.path} is one part of {header.metadata['split.count']}",
            hint="join the parts with llama.cpp's `llama-gguf-split --merge`",
        )
    return _FAMILIES[name]


def hf_name(family: Family, name: str) -> str | None:
    """transformers' name of a tensor; ``None`` for one that the family does not have."""
    stem, _, kind = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{kind}"
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if match and match[2] in family.layer:
        return f"model.layers.{match[1]}.{family.layer[match[2]]}.{kind}"
    return None


def config_fields(header: GgufHeader, family: Family, factors: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The fields of ``config.json``. ``factors`` are the frequency factors of the file, by tensor name.

    Raises:
        CheckpointError: ``broken-gguf``, ``gguf-unsupported``.
    """
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    if "token_embd.weight" not in shapes:
        raise _broken(header, "has no tensor 'token_embd.weight'")
    fields: dict[str, Any] = {ours: positive(header, theirs) for theirs, ours in _CONFIG.items()}
    _check_layers(header, fields["num_hidden_layers"])
    heads = fields["num_attention_heads"]
    rotary = int_or(_get(header, "rope.dimension_count"), 0)
    head_dim = int_or(_get(header, "attention.key_length"), 0)
    head_dim = head_dim or (rotary if family.rotary_pairs else 0) or max(1, fields["hidden_size"] // heads)
    fields |= {
        "num_key_value_heads": positive(header, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": number(header, "attention.layer_norm_rms_epsilon"),
        "vocab_size": shapes["token_embd.weight"][0],
        "tie_word_embeddings": "output.weight" not in shapes,
        "rope_theta": number(header, "rope.freq_base", 10_000.0),
    }
    fields |= token_ids(header)
    return fields | _family_fields(header, family, fields, rotary) | _rope_scaling(header, fields, factors)


def token_ids(header: GgufHeader) -> dict[str, Any]:
    """``bos_token_id``, ``eos_token_id`` (all tokens that end an answer) and ``pad_token_id``."""
    ids = {key: header.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("bos", "eos", "eot", "padding")}
    ends = list(dict.fromkeys(ids[key] for key in ("eos", "eot") if ids[key] is not None))
    return {
        "bos_token_id": ids["bos"],
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": ids["padding"],
    }


def _family_fields(header: GgufHeader, family: Family, fields: Mapping[str, Any], rotary: int) -> dict[str, Any]:
    window = int_or(_get(header, "attention.sliding_window"), 0)
    if family.model_type == "gemma3_text":
        # the 27B model alone scales its queries by hidden_size / heads (llama.cpp, src/models/gemma3.cpp)
        is_27b = fields["num_hidden_layers"] == 62
        scalar = fields["hidden_size"] // fields["num_attention_heads"] if is_27b else fields["head_dim"]
        return {"sliding_window": window or None, "query_pre_attn_scalar": scalar}
    if family.model_type == "llama":
        there = {tensor.name for tensor in header.tensors}
        return {"attention_bias": "blk.0.attn_q.bias" in there, "mlp_bias": "blk.0.ffn_up.bias" in there}
    if family.model_type == "phi3":
        partial = {"partial_rotary_factor": rotary / fields["head_dim"]} if rotary else {}
        return {"sliding_window": window or None, **partial}
    return {}


def _rope_scaling(
    header: GgufHeader, fields: Mapping[str, Any], factors: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    kind = _get(header, "rope.scaling.type") or "none"
    original = int_or(_get(header, "rope.scaling.original_context_length"), 0)
    if "rope_freqs.weight" in factors:
        return _llama3_scaling(header, fields, factors["rope_freqs.weight"])
    if "rope_factors_long.weight" in factors:
        scaling: dict[str, Any] = {
            "rope_type": "longrope",
            "long_factor": list(factors["rope_factors_long.weight"]),
            "short_factor": list(factors.get("rope_factors_short.weight", ())),
        }
        known = {"original_max_position_embeddings": original} if original else {}
        return {"rope_scaling": scaling, **known}
    if kind == "none":
        return {}
    if kind not in ("linear", "yarn"):
        raise _unsupported(header, f"scales its positions by {kind!r}")
    scaling = {"rope_type": kind, "factor": number(header, "rope.scaling.factor")}
    if original:
        scaling["original_max_position_embeddings"] = original
    return {"rope_scaling": scaling}


def _llama3_scaling(header: GgufHeader, fields: Mapping[str, Any], factors: Sequence[float]) -> dict[str, Any]:
    """The four numbers of Llama 3's rotary scaling, found from the factors that llama.cpp made of them."""
    factor = max(factors)
    if factor == 1:
        return {}
    low, high, original = 1.0, 4.0, 8192
    expected = []
    for pair in range(len(factors)):
        wavelength = 2 * math.pi * fields["rope_theta"] ** (2 * pair / fields["head_dim"])
        smooth = min(1.0, max(0.0, (original / wavelength - low) / (high - low)))
        expected.append(1 / ((1 - smooth) / factor + smooth))
    if not all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(factors, expected, strict=True)):
        raise _unsupported(header, "scales its positions in a way of its own")
    numbers = {"factor": factor, "low_freq_factor": low, "high_freq_factor": high}
    return {"rope_scaling": {"rope_type": "llama3", **numbers, "original_max_position_embeddings": original}}


def _check_layers(header: GgufHeader, n_layers: int) -> None:
    """A count that the tensors do not bear out must not reach the code that builds that many layers."""
    there = {int(match[1]) for tensor in header.tensors if (match := re.match(r"blk\.(\d+)\.", tensor.name))}
    if len(there) != n_layers or there != set(range(len(there))):
        raise _broken(header, f"claims {n_layers:,} layers and has tensors of {len(there):,}")


def int_or(value: object, default: int) -> int:
    """``value`` where it is an int."""
    return value if isinstance(value, int) else default


def positive(header: GgufHeader, key: str, default: int | None = None) -> int:
    """A count from the metadata of the family."""
    value = _get(header, key)
    value = default if value is None else value
    if not isinstance(value, int) or value <= 0:
        raise _broken(header, f"has {header.architecture}.{key} = {value!r}")
    return value


def number(header: GgufHeader, key: str, default: float | None = None) -> float:
    """A real number above zero from the metadata of the family."""
    value = _get(header, key)
    value = default if value is None else value
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise _broken(header, f"has {header.architecture}.{key} = {value!r}")
    return float(value)


def _get(header: GgufHeader, key: str) -> object:
    return header.metadata.get(f"{header.architecture}.{key}")


def _broken(header: GgufHeader, what: str) -> CheckpointError:
    return CheckpointError("broken-gguf", f"{header.path} {what}", hint="copy or download the file again")


def _unsupported(header: GgufHeader, what: str) -> CheckpointError:
    return CheckpointError(
        "gguf-unsupported",
        f"{header.path} {what}, which cannot be imported yet",
        hint=f"families that can: {', '.join(_FAMILIES)}; or name the model's original, org/name on the hub",
    )
