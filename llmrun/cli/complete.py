"""What the shell offers on Tab: models, planners, presets and other words.

Every Tab starts a process, so nothing heavy is imported: the few names that would need it stand here, and a test holds
them against what they repeat. Whatever fails offers nothing, since an error would be printed into the user's line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from llmrun.settings import SPECULATE_WORDS

Complete = Callable[[str], list[str]]
"""What Typer's ``autocompletion`` takes: the words that may continue the given one."""

_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)
"""A word that no shell has to quote; others are not offered, since completion scripts evaluate what they are told."""


def choices(*words: str) -> Complete:
    """Offers these words."""

    def complete(incomplete: str) -> list[str]:
        return _offer(incomplete, lambda: words)

    return complete


planners = choices("aco", "greedy", "even", "exhaustive", "milp", "random", "nsga2")
formats = choices("q4", "q8", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k")
qualities = choices("lossless", "high", "balanced", "small")
goals = choices("total", "ttft", "tpot", "throughput")


def models(incomplete: str) -> list[str]:
    """Offers every alias, and the models on this disk by the names of ``llmrun list``."""
    return _offer(incomplete, _aliases, _imported, _cached)


def drafters(incomplete: str) -> list[str]:
    """Offers what ``--speculate`` knows: its words, and models."""
    return _offer(incomplete, lambda: SPECULATE_WORDS, lambda: models(""))


def removable(incomplete: str) -> list[str]:
    """Offers the models on this disk: those that ``llmrun rm`` would delete."""
    return _offer(incomplete, _local_aliases, _imported, _cached)


def targets(incomplete: str) -> list[str]:
    """Offers llmrun itself and its models, for ``llmrun compare``; an address has to be typed."""
    return _offer(incomplete, lambda: ["llmrun"], lambda: [f"llmrun:{name}" for name in models("")])


def presets(incomplete: str) -> list[str]:
    """Offers the typical machines that ``--hardware`` knows."""
    return _offer(incomplete, _presets)


def _offer(incomplete: str, *sources: Callable[[], Iterable[str]]) -> list[str]:
    words = [word for source in sources for word in _known_to(source)]
    return [word for word in dict.fromkeys(words) if word.startswith(incomplete) and _PLAIN.fullmatch(word)]


def _known_to(source: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return list(source())
    except Exception:
        return []


def _aliases() -> Iterable[str]:
    from llmrun.hub.aliases import aliases

    return aliases()


def _local_aliases() -> Iterable[str]:
    from llmrun.hub.inventory import known

    return [one.alias.name for one in known() if one.local]


def _imported() -> Iterable[str]:
    from llmrun.hub.store import imported

    return [record.name for record, _ in imported()]


def _cached() -> Iterable[str]:
    from llmrun.hub.hf_cache import snapshots

    return [str(found.hub) for found in snapshots()]


def _presets() -> Iterable[str]:
    from llmrun.hardware.presets import preset_names

    return preset_names()
