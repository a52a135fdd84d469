"""The models that llmrun itself has made: one folder each, put in place in one step."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from llmrun.hub.folder import check_folder
from llmrun.hub.model import Origin
from llmrun.settings import cache_folder

if TYPE_CHECKING:
    from filelock import FileLock

SCHEMA_VERSION = 1
RECORD_FILE = "llmrun.json"
_PARTIAL = ".partial-"
_LOCK = ".lock"


@dataclass(frozen=True)
class Record:
    """What an imported model was made from; kept beside its weights."""

    name: str  # what `llmrun list` shows and `llmrun rm` takes
    origin: Origin
    source: str  # the .gguf file, or package==version
    schema: int = SCHEMA_VERSION


def models_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Where imported models lie."""
    return cache_folder(env) / "models"


def safe_name(text: str) -> str:
    """``text`` as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "model"


def build(target: Path, record: Record, fill: Callable[[Path], None]) -> Path:
    """Make the model folder ``target``: ``fill`` writes into a folder beside it, which is then renamed.

    Whatever ends ``fill`` early leaves nothing behind. Where two processes make the same model, the first one wins.
    """
    with scratch(target) as partial:
        fill(partial)
        (partial / RECORD_FILE).write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
        for path in partial.iterdir():
            sync(path)
        sync(partial)
        try:
            partial.rename(target)
        except OSError:
            # a name that is taken was taken by another process that made the same model
            if find(target) is None:
                raise
        sync(target.parent)
    return target


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that goes away at the end, and after a killed process with the next one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    partial = target.parent / f"{_PARTIAL}{target.name}-{uuid4().hex[:8]}"
    lock = _lock_of(partial)  # says that its maker lives: it goes with the process, however that ends
    with lock:
        try:
            partial.mkdir()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)


def find(target: Path) -> Path | None:
    """``target`` where it is a finished model."""
    return check_folder(target) if (target / RECORD_FILE).is_file() else None


def imported() -> Iterator[tuple[Record, Path]]:
    """Every model here, by name."""
    root = models_folder()
    found = [(record, path.parent) for path in root.glob(f"*/{RECORD_FILE}") if (record := _read(path))]
    yield from sorted(found, key=lambda pair: pair[0].name)


def named(name: str) -> tuple[Record, Path] | None:
    """The imported model that ``llmrun list`` shows under that name."""
    return next(((record, folder) for record, folder in imported() if record.name == name), None)


def remove(folder: Path) -> int:
    """Delete a folder that this module made; the bytes that this frees. A link goes, what it leads to stays."""
    assert folder.parent == models_folder(), "only our own folders are deleted"
    freed_bytes = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    shutil.rmtree(folder)
    return freed_bytes


def _read(path: Path) -> Record | None:
    if path.parent.name.startswith(_PARTIAL):
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Record(str(fields["name"]), Origin(fields["origin"]), str(fields["source"]), int(fields["schema"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sweep(root: Path) -> None:
    """Delete what a killed process left: a folder whose lock can be had."""
    for lock_file in root.glob(f"{_PARTIAL}*{_LOCK}"):
        partial = lock_file.with_name(lock_file.name.removesuffix(_LOCK))
        with suppress(OSError), _lock_of(partial).acquire(blocking=False):
            shutil.rmtree(partial, ignore_errors=True)
            lock_file.unlink(missing_ok=True)


def _lock_of(partial: Path) -> FileLock:
    from filelock import FileLock  # a quarter of a second, and only those who make a model need it

    return FileLock(f"{partial}{_LOCK}")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders, and keeps their entries by itself
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
