"""The sliding window of each layer, as transformers' configuration classes derive it."""

from __future__ import annotations

from typing import Any

from llmrun.checkpoint.families import FAMILIES, Family
from llmrun.errors import CheckpointError

_FULL = "full_attention"
_SLIDING = "sliding_attention"


def kv_windows(raw: dict[str, Any], model_type: str, n_layers: int) -> tuple[int | None, ...]:
    """Tokens that the cache of each layer holds at most; ``None`` is full attention.

    Raises:
        CheckpointError: ``broken-config``, ``unsupported-architecture`` (a kind of layer that is neither).
    """
    family = FAMILIES.get(model_type, Family())
    window = _window(raw, family)
    if raw.get("layer_types") is not None:
        kinds = _listed_kinds(raw["layer_types"], n_layers)
        return tuple(window if kind == _SLIDING else None for kind in kinds)
    if window is None:
        return (None,) * n_layers
    return tuple(window if _slides(raw, family, layer) else None for layer in range(n_layers))


def _window(raw: dict[str, Any], family: Family) -> int | None:
    if not raw.get("use_sliding_window", family.window_after is None):
        return None
    window = raw.get("sliding_window", family.sliding_window)
    if window is not None and (type(window) is not int or window <= 0):
        raise CheckpointError("broken-config", f"config.json: sliding_window is {window!r:.40}")
    return window


def _listed_kinds(kinds: object, n_layers: int) -> list[str]:
    if not isinstance(kinds, list) or len(kinds) != n_layers:
        raise CheckpointError("broken-config", f"config.json: layer_types does not list {n_layers} layers")
    for kind in kinds:
        if kind not in (_FULL, _SLIDING):
            raise CheckpointError(
                "unsupported-architecture",
                f"the model has layers of the kind {kind!r:.40}; llmrun runs full and sliding attention",
            )
    return kinds


def _slides(raw: dict[str, Any], family: Family, layer: int) -> bool:
    if family.window_on_all:
        return True
    if family.window_pattern is not None:
        return (layer + 1) % _count(raw, "sliding_window_pattern", family.window_pattern) != 0
    if family.window_after is not None:
        return layer >= _count(raw, "max_window_layers", family.window_after, least=0)
    return False


def _count(raw: dict[str, Any], key: str, default: int, least: int = 1) -> int:
    value = raw.get(key, default)
    if type(value) is not int or value < least:
        raise CheckpointError("broken-config", f"config.json: {key} is {value!r:.40}")
    return value
