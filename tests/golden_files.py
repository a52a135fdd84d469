"""Texts that are held against files. To renew these after a change: LLMRUN_WRITE_GOLDEN=1."""

import os
from pathlib import Path


def held(text: str, golden: Path) -> None:
    """The text is that of the file."""
    if os.environ.get("LLMRUN_WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
