"""What is compared, as users write it: ``http://host:8000``, ``name=http://host:8000/v1``, ``llmrun:MODEL``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import httpx2

from llmrun.bench.serving.endpoint import shown_url
from llmrun.errors import UsageError

LOCAL = "llmrun"
_LABELLED = re.compile(r"([^=:/]+)=(.+)", re.DOTALL)
_HINT = "`http://127.0.0.1:8000`, `vllm=http://127.0.0.1:8000/v1`, `llmrun` or `llmrun:MODEL`"


@dataclass(frozen=True)
class Target:
    """A server, or llmrun where there is no ``url``.

    Attributes:
        label: what the report calls it.
        url: ends with ``/v1/``; may hold a password.
        model: what ``llmrun:MODEL`` names.
    """

    label: str
    url: str | None = None
    model: str | None = None

    @property
    def shown_url(self) -> str | None:
        """The URL without a password."""
        return shown_url(self.url) if self.url else None


def parse_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """The targets, each with a label of its own: the second ``llmrun`` is ``llmrun (2)``.

    Raises:
        UsageError: ``bad-option``, one is neither a URL nor llmrun.
    """
    seen: Counter[str] = Counter()
    targets = []
    for target in map(parse_target, texts):
        seen[target.label] += 1
        number = seen[target.label]
        targets.append(replace(target, label=f"{target.label} ({number})") if number > 1 else target)
    return tuple(targets)


def parse_target(text: str) -> Target:
    """One target.

    Raises:
        UsageError: ``bad-option``.
    """
    match = _LABELLED.fullmatch(text)
    label, place = (match[1].strip(), match[2]) if match else ("", text)
    name, _, model = place.partition(":")
    if name == LOCAL:
        return Target(label or place, model=model or None)
    if name not in ("http", "https"):
        raise UsageError("bad-option", f"{text!r} is neither a URL nor llmrun", hint=_HINT)
    url = _base_url(text, place)
    return Target(label or shown_url(url).removesuffix("/v1/").partition("://")[2], url)


def _base_url(text: str, place: str) -> str:
    try:
        url = httpx2.URL(place)
    except httpx2.InvalidURL as error:
        raise UsageError("bad-option", f"{text!r} is not a URL: {error}", hint=_HINT) from None
    if not url.host:
        raise UsageError("bad-option", f"{text!r} names no host", hint=_HINT)
    path = url.path.rstrip("/")
    return str(url.copy_with(path=path + ("/" if path.endswith("/v1") else "/v1/"), query=None, fragment=None))
