"""What the hub hands out: a checkpoint that is on this disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

Notify = Callable[[str], None]


class Origin(StrEnum):
    """Where a checkpoint came from."""

    FOLDER = "folder"  # a folder of the user's
    HUGGINGFACE = "huggingface"  # the local Hugging Face cache, filled by us or by another tool
    GGUF = "gguf"  # imported from a .gguf file of the user's
    PYPI = "pypi"  # imported from the GGUF inside a wheel
    QUANTISED = "quantised"  # made by `llmrun quantize` from another model
    REPACKED = "repacked"  # made from a checkpoint whose integers cannot be multiplied by as they lie


@dataclass(frozen=True)
class LocalModel:
    """A model that is ready to be read.

    ``folder`` holds ``config.json``, safetensors and the tokenizer's files; its files may be symbolic links.
    """

    name: str  # as the user said it
    folder: Path
    origin: Origin
    revision: str | None = None  # commit of a Hugging Face snapshot
