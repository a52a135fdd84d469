"""Where the repacked weights of a checkpoint lie that others quantised to integers: among llmrun's own models."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from llmrun.errors import CheckpointError
from llmrun.hub import store
from llmrun.hub.folder import CONFIG
from llmrun.hub.model import LocalModel, Origin
from llmrun.hub.store import Record, find, models_folder, safe_name

SUFFIX = "-repacked"
_SCHEMA_VERSION = 1  # another one where the same files would be repacked otherwise


def record_of(folder: Path) -> Record:
    """What is kept beside the repacked weights of the checkpoint in ``folder``."""
    is_snapshot = folder.parent.name == "snapshots"  # of a Hugging Face cache: models--ORG--NAME/snapshots/COMMIT
    base = folder.parent.parent.name.rpartition("--")[2] if is_snapshot else folder.name
    return Record(f"{base}{SUFFIX}", Origin.REPACKED, str(folder))


def target_of(folder: Path) -> Path:
    """The folder for the repacked weights of the checkpoint in ``folder``, as that is now: another one if it changes.

    Raises:
        CheckpointError: ``unreadable``.
    """
    try:
        weights = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors" or path.name == CONFIG)
        status = [(path.name, path.stat()) for path in weights]
    except OSError as error:
        raise CheckpointError("unreadable", f"{folder} cannot be read: {error.strerror}") from error
    said = [f"{name}\0{there.st_size}\0{there.st_mtime_ns}" for name, there in status]
    key = hashlib.sha256("\n".join([str(_SCHEMA_VERSION), str(folder), *said]).encode()).hexdigest()[:12]
    return models_folder() / f"{safe_name(record_of(folder).name)}-{key}"


def found(local: LocalModel) -> LocalModel:
    """The repacked copy of a model where there is one, else the model itself."""
    if not models_folder().is_dir() or (done := find(target_of(local.folder))) is None:
        return local
    return replace(local, folder=done, origin=Origin.REPACKED)


def remove_former(folder: Path, target: Path) -> None:
    """Delete what earlier states of the checkpoint in ``folder`` were repacked to."""
    for record, former in list(store.imported()):
        if (record.origin, record.source) == (Origin.REPACKED, str(folder)) and former != target:
            store.remove(former)
