"""The models on this disk and the aliases: what ``llmrun list`` shows and ``llmrun rm`` removes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmrun.errors import CheckpointError, UsageError
from llmrun.hub import hf_cache, mirror, store
from llmrun.hub.aliases import Alias, aliases, find_alias
from llmrun.hub.folder import nbytes
from llmrun.hub.hf_cache import HubId
from llmrun.hub.model import Origin

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Installed:
    """A model on this disk that could be run."""

    name: str  # what `llmrun chat` takes
    origin: Origin
    source: str  # the file, the wheel or the commit that it came from
    folder: Path
    size_bytes: int


@dataclass(frozen=True)
class Known:
    """An alias, and whether it is on this disk."""

    alias: Alias
    local: bool


def installed() -> list[Installed]:
    """Models imported by us and models of the Hugging Face cache that are complete."""
    ours = [
        Installed(record.name, record.origin, record.source, folder, nbytes(folder))
        for record, folder in store.imported()
    ]
    theirs = [
        Installed(str(found.hub), Origin.HUGGINGFACE, found.commit, found.folder, found.size_bytes)
        for found in hf_cache.snapshots()
    ]
    return ours + theirs


def known() -> list[Known]:
    """Every alias of the table."""
    return [Known(alias, _is_local(alias)) for alias in aliases().values()]


def remove(name: str) -> int:
    """Delete every copy of a model that we imported or that lies in the Hugging Face cache; the bytes freed.

    Raises:
        UsageError: ``not-ours``: a folder or file of the user's.
        CheckpointError: ``model-not-found``.
    """
    places = removable(name)
    return sum(store.remove(place) if isinstance(place, Path) else hf_cache.remove(place) for place in places)


def removable(name: str) -> list[Path | HubId]:
    """What ``remove(name)`` would delete: our folders, and revisions of the Hugging Face cache.

    Raises: as ``remove``.
    """
    places: list[Path | HubId] = [folder for record, folder in store.imported() if name in _names(record, folder)]
    alias = find_alias(name)
    hub = HubId(alias.hub, alias.revision) if alias else hf_cache.parse_id(name)
    if hub and hf_cache.contains(hub):
        places.append(hub)
    if places:
        return places
    if Path(name).expanduser().exists():
        raise UsageError(
            "not-ours",
            f"{name} is yours: only imported models and models in the Hugging Face cache are deleted",
            hint="delete it yourself if you do not need it",
        )
    raise CheckpointError("model-not-found", f"no model {name!r} is on this disk", hint="`llmrun list` shows what is")


def _names(record: store.Record, folder: Path) -> set[str]:
    return {record.name, record.source, folder.name, str(folder)}


def _is_local(alias: Alias) -> bool:
    if alias.mirror and store.find(mirror.target_of(alias, alias.mirror)):
        return True
    return hf_cache.cached(HubId(alias.hub, alias.revision)) is not None
