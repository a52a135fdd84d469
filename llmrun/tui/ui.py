"""How much is drawn while a model works: the dashboard, a line, or nothing."""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import TextIO

from llmrun.errors import UsageError
from llmrun.tui import theme


class Ui(StrEnum):
    """What ``--ui`` and LLMRUN_UI may say."""

    DASHBOARD = "dashboard"  # the whole, redrawn while the model works
    SIMPLE = "simple"  # a line
    NONE = "none"


def resolve_ui(asked: str | None, default: Ui, stream: TextIO) -> Ui:
    """What is drawn on ``stream``: nothing in a pipe, no dashboard where lines cannot be redrawn.

    Args:
        asked: the text of ``--ui``; ``None`` where nothing was said.
        default: what is drawn then.
        stream: where it would be drawn.

    Raises:
        UsageError: ``bad-option``, the text is none of them.
    """
    ui = default if asked is None else _parsed(asked)
    if not stream.isatty():
        return Ui.NONE
    return Ui.SIMPLE if ui is Ui.DASHBOARD and not theme.can_draw(stream) else ui


def _parsed(text: str) -> Ui:
    try:
        return Ui(text.strip().lower())
    except ValueError:
        nearest = difflib.get_close_matches(text.lower(), list(Ui), n=1)
        hint = f"`--ui {nearest[0]}`" if nearest else f"one of {', '.join(Ui)}"
        raise UsageError("bad-option", f"--ui {text!r}: there is no such view", hint=hint) from None
