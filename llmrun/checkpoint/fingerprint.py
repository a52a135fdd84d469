"""Whether two descriptions are of the same checkpoint, whatever it is called and wherever it lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from llmrun.checkpoint.spec import ModelSpec


def fingerprint(spec: ModelSpec) -> str:
    """16 hexadecimal digits of all that the headers and the configuration say; the weights are not looked at."""
    said = asdict(spec, dict_factory=_said)
    del said["name"], said["folder"]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _said(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a value; those that came later only where they say something, so that older prints hold."""
    unsaid = (("paired_head_dim", None), ("minus_one", False))
    return dict(pair for pair in fields if pair not in unsaid)
