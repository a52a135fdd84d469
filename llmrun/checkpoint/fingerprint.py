"""Whether two descriptions are of the same checkpoint, whatever it is called and wherever it lies."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from llmrun.checkpoint.spec import ModelSpec


def fingerprint(spec: ModelSpec) -> str:
    """16 hexadecimal digits of all that the headers and the configuration say; the weights are not looked at."""
    said = asdict(spec)
    del said["name"], said["folder"]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
