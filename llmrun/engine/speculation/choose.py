"""Which drafter is meant by ``--speculate``."""

from __future__ import annotations

from llmrun.engine.speculation.draft import MakeDrafter
from llmrun.engine.speculation.ngram import NgramDrafter
from llmrun.settings import NGRAM, Speculating


def drafters(asked: Speculating) -> MakeDrafter | None:
    """What makes the drafter of each answer; ``None`` where there is to be none, as ``auto`` decides today."""
    return (lambda sampler: NgramDrafter()) if asked.method == NGRAM else None
