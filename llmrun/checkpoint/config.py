"""``config.json`` as numbers, and what in it says that the model cannot run yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmrun.checkpoint import families
from llmrun.checkpoint.families import ALTERNATIVE_KEYS, FAMILIES, Family
from llmrun.checkpoint.files import Files
from llmrun.checkpoint.quantised import CONFIG_FILE, quantization_in, refuse_quantised
from llmrun.checkpoint.strict_json import MAX_CONFIG_BYTES, read_json
from llmrun.checkpoint.windows import kv_windows
from llmrun.errors import CheckpointError
from llmrun.settings import DEFAULT_CONTEXT_TOKENS

_MAX_VALUE = 2**40  # more than any model has of anything


@dataclass(frozen=True)
class ModelConfig:
    """What the planner and the runtime need of a config.json; every number is positive."""

    architecture: str
    model_type: str
    n_layers: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    context_tokens: int
    tied: bool | None  # None: tied if the checkpoint has no head of its own
    torch_dtype: str  # torch's name of the dtype that it was saved in, empty where it is not said
    raw: dict[str, Any]

    def windows(self) -> tuple[int | None, ...]:
        """The sliding window of every layer, ``None`` for full attention; call it once ``n_layers`` is verified.

        Raises:
            CheckpointError: ``broken-config``, ``unsupported-architecture``.
        """
        return kv_windows(self.raw, self.model_type, self.n_layers)


def read_config(files: Files, *, trust_remote_code: bool = False) -> ModelConfig:
    """The configuration of a checkpoint.

    Raises:
        CheckpointError: ``no-config``, ``broken-config``, ``unreadable``, ``unsupported-architecture``,
            ``unsupported-format``, ``remote-code``.
    """
    if CONFIG_FILE not in files.names():
        raise CheckpointError("no-config", f"{files.place} has no {CONFIG_FILE}")
    raw = read_json(files, CONFIG_FILE, reference="broken-config", max_bytes=MAX_CONFIG_BYTES)
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError("unsupported-architecture", f"{CONFIG_FILE} names no model_type")
    _refuse_formats(raw)
    _refuse_kinds(raw, model_type)
    _refuse_remote_code(raw, model_type, trust_remote_code)
    return _numbers(raw, _architecture(raw), model_type)


def _refuse_formats(raw: dict[str, Any]) -> None:
    refuse_quantised(quantization_in(raw))
    for key in families.EXPERT_COUNT_KEYS:
        count = raw.get(key)
        if type(count) is int and count > 1:
            raise mixture_of_experts(f"{key} is {count}")


def mixture_of_experts(reason: str) -> CheckpointError:
    """The refusal of a mixture of experts."""
    return CheckpointError(
        "unsupported-format",
        f"the model is a mixture of experts ({reason}), which llmrun cannot run yet",
        hint="use a dense model",
    )


def _refuse_kinds(raw: dict[str, Any], model_type: str) -> None:
    if raw.get("is_encoder_decoder"):
        raise _unsupported("an encoder-decoder model")
    if any(isinstance(raw.get(key), dict) for key in families.MULTIMODAL_KEYS):
        raise _unsupported(f"a multimodal model ({model_type:.40})")
    recurrent = [key for key in families.RECURRENT_KEYS if raw.get(key) is not None]
    if recurrent or model_type in families.RECURRENT_FAMILIES:
        raise _unsupported(f"a recurrent or hybrid model ({', '.join(recurrent) or model_type})")
    if raw.get("kv_lora_rank") is not None:
        raise _unsupported("a model with multi-head latent attention (kv_lora_rank)")


def _unsupported(what: str) -> CheckpointError:
    return CheckpointError(
        "unsupported-architecture",
        f"the checkpoint is {what}; llmrun runs decoder-only text models with attention",
    )


def _refuse_remote_code(raw: dict[str, Any], model_type: str, trusted: bool) -> None:
    if raw.get("auto_map") and not trusted and model_type not in families.NATIVE_FAMILIES:
        raise CheckpointError(
            "remote-code",
            f"the model ({model_type:.40}) needs Python code that comes with the checkpoint",
            hint="read that code, and if you trust it add `--trust-remote-code`",
        )


def _architecture(raw: dict[str, Any]) -> str:
    named = raw.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise CheckpointError("unsupported-architecture", f"{CONFIG_FILE} names no architectures")
    architecture: str = named[0]
    if not architecture.endswith(("ForCausalLM", "LMHeadModel")):
        raise _unsupported(f"a {architecture:.80}")
    return architecture


def _numbers(raw: dict[str, Any], architecture: str, model_type: str) -> ModelConfig:
    family = FAMILIES.get(model_type, Family())
    hidden_size = _count(raw, "hidden_size")
    n_heads = _count(raw, "n_heads")
    head_dim = _count(raw, "head_dim", family.head_dim or hidden_size // n_heads)
    tied = raw.get("tie_word_embeddings")
    return ModelConfig(
        architecture=architecture,
        model_type=model_type,
        n_layers=_count(raw, "n_layers"),
        hidden_size=hidden_size,
        intermediate_size=_count(raw, "intermediate_size", 4 * hidden_size),
        n_heads=n_heads,
        n_kv_heads=_kv_heads(raw, n_heads, family),
        head_dim=head_dim,
        vocab_size=_count(raw, "vocab_size"),
        context_tokens=_count(raw, "context_tokens", DEFAULT_CONTEXT_TOKENS),
        tied=family.tied if tied is None else bool(tied),
        torch_dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "").removeprefix("torch."),
        raw=raw,
    )


def _kv_heads(raw: dict[str, Any], n_heads: int, family: Family) -> int:
    if raw.get("multi_query") and not raw.get("new_decoder_architecture"):  # Falcon 7B, StarCoder
        return 1
    absent = not any(key in raw for key in ALTERNATIVE_KEYS["n_kv_heads"])
    return _count(raw, "n_kv_heads", family.n_kv_heads if absent and family.n_kv_heads else n_heads)


def _count(raw: dict[str, Any], name: str, default: int | None = None) -> int:
    keys = ALTERNATIVE_KEYS.get(name, (name,))
    key = next((key for key in keys if raw.get(key) is not None), keys[0])
    value = raw.get(key)
    if value is None:
        value = default
    if type(value) is not int or not 0 < value < _MAX_VALUE:
        raise CheckpointError("broken-config", f"{CONFIG_FILE}: {key} is {value!r:.40}, not a positive number")
    return value
