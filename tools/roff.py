"""Text as roff, for manual pages by man(7). Lines stay under 80 bytes, which mandoc asks for."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

WIDTH = 78
_GLYPHS = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}


def escape(text: str) -> str:
    """Text that roff prints as it is: dashes that can be copied, straight quotes, letters beyond ASCII."""
    return "".join(
        _GLYPHS.get(letter) or (letter if letter.isascii() else f"\\[u{ord(letter):04X}]") for letter in text
    )


def bold(text: str) -> str:
    """Text to be typed as it is."""
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    """Text to be replaced."""
    return f"\\fI{escape(text)}\\fR"


def prose(text: str) -> str:
    """A filled paragraph: what stands between backticks is bold, and each sentence begins a line."""
    pieces = re.split(r"`([^`]+)`", text)
    marked = "".join(bold(piece) if n % 2 else escape(piece) for n, piece in enumerate(pieces))
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z0-9\\])", marked)
    return "\n".join(line for sentence in sentences for line in _wrapped(sentence))


def signature(text: str) -> str:
    """``-p, --prompt TEXT`` with options bold and values italic."""
    return " ".join(_word(word) for word in text.split())


def verbatim(lines: Iterable[str]) -> str:
    """Lines that are neither filled nor changed."""
    return "\n".join([".nf", *(_guarded(escape(line)) for line in lines), ".fi"])


def tagged(tag: str, text: str) -> str:
    """A tag (roff already) and an indented paragraph of prose."""
    return f".TP\n{_guarded(tag)}\n{prose(text)}"


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it."""
    return "\n".join([f".SH {title}", *parts])


def _word(word: str) -> str:
    bare = word.rstrip(",")
    if bare == "/":
        return word
    return (bold(bare) if bare.startswith("-") else italic(bare)) + word[len(bare) :]


def _wrapped(sentence: str) -> list[str]:
    lines = textwrap.wrap(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [_guarded(line) for line in lines]


def _guarded(line: str) -> str:
    """A line that begins with a stop would be a request."""
    return f"\\&{line}" if line.startswith((".", "'")) else line
