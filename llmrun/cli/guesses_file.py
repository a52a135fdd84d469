"""How often guesses were right, by substitutes or another model, kept in the cache folder: later plans reckon with it.

A file for each model and what drafted for it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llmrun.cli.plans_folder import write_whole
from llmrun.settings import cache_folder

if TYPE_CHECKING:
    from llmrun.checkpoint.spec import ModelSpec

SCHEMA_VERSION = 1

MOST_GUESSES = 2000
"""Older ones fade."""


def known_acceptance(spec: ModelSpec, draft_model: ModelSpec | None = None) -> float:
    """The share of guesses that are taken to be right, by what was seen; without a model, of substitutes."""
    from llmrun.planner.drafting import ACCEPTANCE, MODEL_ACCEPTANCE, seen_acceptance

    return seen_acceptance(MODEL_ACCEPTANCE if draft_model else ACCEPTANCE, *_read(_path(spec, draft_model)))


def keep_guesses(spec: ModelSpec, right: int, tried: int, draft_model: ModelSpec | None = None) -> None:
    """Add what a run saw; nothing is kept where the cache folder cannot be written."""
    if not tried:
        return
    path = _path(spec, draft_model)
    before_right, before_tried = _read(path)
    fade = min(1.0, max(0, MOST_GUESSES - tried) / before_tried) if before_tried else 0.0
    value = {"schema": SCHEMA_VERSION, "right": right + fade * before_right, "tried": tried + fade * before_tried}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(value) + "\n")


def _path(spec: ModelSpec, draft_model: ModelSpec | None) -> Path:
    from llmrun.checkpoint.fingerprint import fingerprint
    from llmrun.planner.drafting import SUBSTITUTE

    by = fingerprint(draft_model) if draft_model else SUBSTITUTE
    return cache_folder() / "guesses" / f"{fingerprint(spec)}-{by}.json"


def _read(path: Path) -> tuple[float, float]:
    """(right, tried); nothing where the file is missing or no such thing."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        right, tried = float(value["right"]), float(value["tried"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0.0, 0.0
    return (right, tried) if value.get("schema") == SCHEMA_VERSION and 0 <= right <= tried < 1e9 else (0.0, 0.0)
