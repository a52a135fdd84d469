"""Whether a folder has a tokenizer, by the names of its files: known before anything slow is imported or read."""

from __future__ import annotations

from pathlib import Path

from llmrun.errors import CheckpointError

# Any of these has a vocabulary; without one transformers fails late or makes an empty tokenizer.
_VOCABULARIES = ("tokenizer.json", "*.model", "*.tiktoken", "vocab.*", "tekken.json", "tokenization_*.py")


def has_tokenizer(folder: Path) -> bool:
    """Whether some tokenizer of transformers could be loaded from ``folder``."""
    return any(path.is_file() for pattern in _VOCABULARIES for path in folder.glob(pattern))


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without a tokenizer.

    Raises:
        CheckpointError: ``no-tokenizer``.
    """
    if not has_tokenizer(folder):
        raise CheckpointError(
            "no-tokenizer",
            f"{folder} has no tokenizer",
            hint="copy tokenizer.json and tokenizer_config.json of the model into that folder",
        )
