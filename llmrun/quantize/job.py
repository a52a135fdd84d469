"""A quantised checkpoint made in a hidden folder beside its place, file by file, and put there in one step.

An interrupted job leaves the files that it finished; the same job, begun again, finds them by their lengths and goes
on.
What the job is made from stands in the hidden folder, so that another one begins anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.checkpoint.recipe import Recipe, formats
from llmrun.checkpoint.spec import ModelSpec
from llmrun.errors import Interrupted, UsageError
from llmrun.hub.disk import check_room, writing
from llmrun.hub.store import RECORD_FILE, Record, sync
from llmrun.quantize.companions import copy_companions, write_config
from llmrun.quantize.importance import load_importance, save_importance
from llmrun.quantize.shards import INDEX, SHARD_BYTES, Shard, index, shards
from llmrun.quantize.writer import write_shard
from llmrun.units import MIB

SCHEMA_VERSION = 1
_JOB = ".job.json"
_IMPORTANCE = ".importance.safetensors"
_LOCK = ".lock"
_SLACK_BYTES = 64 * MIB  # for tokenizer and configuration

Importance = Callable[[], Mapping[str, Tensor]]
Begun = Callable[[int, int], Callable[[int], object]]


@dataclass(frozen=True)
class Job:
    """What is to be made.

    Args:
        spec: the model as it is.
        recipe: the formats.
        target: the folder to make.
        record: written beside the weights where the folder is one of llmrun's own.
        calibration: what the importance of columns comes from, ``None`` for none; another one is another job.
    """

    spec: ModelSpec
    recipe: Recipe
    target: Path
    record: Record | None = None
    calibration: str | None = None
    shard_bytes: int = SHARD_BYTES

    @property
    def partial(self) -> Path:
        """The hidden folder that it is made in."""
        return self.target.parent / f".partial-{self.target.name}"

    def files(self) -> tuple[Shard, ...]:
        """The weights of the result."""
        return shards(self.spec, formats(self.spec, self.recipe), self.shard_bytes)

    def described(self) -> str:
        """All that the result depends on, as JSON."""
        sources = sorted({tensor.file for unit in self.spec.units for tensor in unit.tensors})
        status = [(file, self.spec.path(file).stat()) for file in sources]
        return json.dumps(
            {
                "schema": SCHEMA_VERSION,
                "folder": self.spec.folder,
                "fingerprint": fingerprint(self.spec),
                "files": [[file, there.st_size, there.st_mtime_ns] for file, there in status],
                "format": self.recipe.name,
                "calibration": self.calibration,
                "shards": [[shard.file, shard.nbytes] for shard in self.files()],
            },
            indent=1,
        )


def run(job: Job, importance: Importance, chunk_weights: int, begun: Begun) -> None:
    """Make the checkpoint, or what is missing of it.

    Args:
        importance: gives the importance of columns by name of tensor; not asked where an earlier run kept it.
        chunk_weights: weights that are worked on at once.
        begun: is told the bytes that are there and those of the whole; what it returns is told the bytes written.

    Raises:
        UsageError: ``output-exists``, ``output-busy``.
        CheckpointError: as ``write_shard``.
        DeviceError: ``disk-full``, ``write-failed``.
        Interrupted: what was finished is kept.
    """
    if job.target.is_symlink() or (job.target.exists() and not _is_empty_folder(job.target)):
        raise UsageError(
            "output-exists", f"{job.target} is there already", hint="name another folder, or delete this one"
        )
    files = job.files()
    total_bytes = sum(shard.nbytes for shard in files)
    with writing(job.target.parent, total_bytes), _partial(job):
        missing = [shard for shard in files if not _is_done(job.partial, shard)]
        check_room(job.target.parent, sum(shard.nbytes for shard in missing) + _SLACK_BYTES)
        try:
            columns = _kept_importance(job, importance)
            wrote = begun(total_bytes - sum(shard.nbytes for shard in missing), total_bytes)
            for shard in missing:
                _make(job, shard, columns, chunk_weights, wrote)
        except KeyboardInterrupt:
            raise _interrupted(job, files) from None
        _finish(job, files)


@contextmanager
def _partial(job: Job) -> Iterator[None]:
    """The hidden folder, for this process alone, with what an equal job left in it."""
    job.partial.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.partial / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            "output-busy", f"another process is making {job.target}", hint="wait for it, or name another folder"
        ) from None
    try:
        described, note = job.described(), job.partial / _JOB
        if not note.is_file() or note.read_text(encoding="utf-8") != described:
            _clear(job.partial)
            note.write_text(described, encoding="utf-8")
        yield
    finally:
        lock.release()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _is_done(folder: Path, shard: Shard) -> bool:
    path = folder / shard.file
    return path.is_file() and path.stat().st_size == shard.nbytes


def _kept_importance(job: Job, importance: Importance) -> Mapping[str, Tensor]:
    """Importance is computed once a job, since it takes a pass over the model."""
    if job.calibration is None:
        return {}
    path = job.partial / _IMPORTANCE
    if not path.is_file():
        save_importance(path, importance())
    return load_importance(path)


def _make(
    job: Job, shard: Shard, columns: Mapping[str, Tensor], chunk_weights: int, wrote: Callable[[int], object]
) -> None:
    unfinished = job.partial / f"{shard.file}.unfinished"
    write_shard(unfinished, shard, job.spec, importance=columns, chunk_weights=chunk_weights, wrote=wrote)
    sync(unfinished)
    unfinished.replace(job.partial / shard.file)


def _finish(job: Job, files: tuple[Shard, ...]) -> None:
    """All but the weights, then the step that makes it a checkpoint."""
    source = Path(job.spec.folder)
    copy_companions(source, job.partial)
    write_config(source, job.partial, job.recipe.name)
    if len(files) > 1:
        (job.partial / INDEX).write_text(json.dumps(index(files), indent=1), encoding="utf-8")
    if job.record:
        (job.partial / RECORD_FILE).write_text(json.dumps(asdict(job.record), indent=1), encoding="utf-8")
    for name in (_JOB, _IMPORTANCE, _LOCK):
        (job.partial / name).unlink(missing_ok=True)
    for path in job.partial.iterdir():
        sync(path)
    sync(job.partial)
    job.partial.rename(job.target)
    sync(job.target.parent)


def _interrupted(job: Job, files: tuple[Shard, ...]) -> Interrupted:
    done = sum(_is_done(job.partial, shard) for shard in files)
    return Interrupted(
        message=f"stopped by the user: {done} of {len(files)} files are finished and kept in {job.partial}; "
        "the same command goes on from there"
    )
