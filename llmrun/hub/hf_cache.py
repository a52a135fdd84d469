"""Models in the local Hugging Face cache, whoever put them there: found, listed, deleted. Asks no server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrun.hub.folder import CONFIG, is_complete

_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[^@\s]+))?")


@dataclass(frozen=True)
class HubId:
    """``org/name`` at a branch, tag or commit."""

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Cached:
    """A snapshot that could be run."""

    hub: HubId
    folder: Path
    commit: str
    size_bytes: int


def parse_id(text: str) -> HubId | None:
    """``org/name[@revision]``, or ``None`` where the text is not of that form."""
    match = _ID.fullmatch(text)
    return HubId(match["repo"], match["revision"] or "main") if match else None


def cached(hub: HubId) -> Path | None:
    """The snapshot of a model, where it is complete."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(hub.repo, CONFIG, revision=hub.revision)
    except HFValidationError:
        return None
    folder = Path(config).parent if isinstance(config, str) else None
    return folder if folder and is_complete(folder) else None


def snapshots() -> Iterator[Cached]:
    """Every model that is complete, by name."""
    for repo in sorted(_repos(), key=lambda repo: str(repo.repo_id)):
        for revision in repo.revisions:
            if is_complete(revision.snapshot_path):
                name = "main" if "main" in revision.refs else next(iter(sorted(revision.refs)), revision.commit_hash)
                hub = HubId(repo.repo_id, name)
                yield Cached(hub, revision.snapshot_path, revision.commit_hash, revision.size_on_disk)


def contains(hub: HubId) -> bool:
    """Whether a revision has anything here, complete or not."""
    return bool(_commits(hub))


def remove(hub: HubId) -> int:
    """Delete a revision, complete or not; the bytes that this frees."""
    from huggingface_hub import constants, scan_cache_dir

    strategy = scan_cache_dir(constants.HF_HUB_CACHE).delete_revisions(*_commits(hub))
    freed_bytes = int(strategy.expected_freed_size)
    strategy.execute()
    return freed_bytes


def _commits(hub: HubId) -> list[str]:
    revisions = [revision for repo in _repos() if repo.repo_id == hub.repo for revision in repo.revisions]
    return [rev.commit_hash for rev in revisions if hub.revision in rev.refs or hub.revision == rev.commit_hash]


def _repos() -> list[Any]:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    return [repo for repo in repos if repo.repo_type == "model"]
