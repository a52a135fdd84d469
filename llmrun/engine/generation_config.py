"""What a checkpoint says about generating: ``generation_config.json``, or ``config.json`` where there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmrun.errors import CheckpointError


def load_generation_config(folder: Path) -> Mapping[str, Any]:
    """The generation config of a checkpoint as transformers finds it; empty when the checkpoint has none.

    Older checkpoints have the values in ``config.json``, some in the ``text_config`` within.

    Raises:
        CheckpointError: ``bad-generation-config``, the file is not a JSON object.
    """
    if (folder / "generation_config.json").is_file():
        return _read_object(folder / "generation_config.json")
    if (folder / "config.json").is_file():
        config = _read_object(folder / "config.json")
        return {**(config.get("text_config") or {}), **config}
    return {}


def end_token_ids(generation_config: Mapping[str, Any]) -> frozenset[int]:
    """The tokens that end an answer, from ``eos_token_id``, which is a number or a list of them."""
    ids = generation_config.get("eos_token_id")
    return frozenset() if ids is None else frozenset([ids] if isinstance(ids, int) else ids)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError("bad-generation-config", f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError("bad-generation-config", f"{path} has a {type(value).__name__}, not an object")
    return value
