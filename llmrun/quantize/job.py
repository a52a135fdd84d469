"""A checkpoint in other formats, made in a hidden folder beside its place, file by file, and put there in one step.

An interrupted job leaves the files that it finished; the same job, begun again, finds them by their lengths and goes
on.
What the job is made from stands in the hidden folder, so that another one begins anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from llmrun.checkpoint.written import INDEX, Shard, index
from llmrun.errors import Interrupted, UsageError
from llmrun.hub.disk import check_room, writing
from llmrun.hub.store import RECORD_FILE, Record, sync
from llmrun.quantize.companions import copy_companions, write_config
from llmrun.quantize.writer import Make, write_shard
from llmrun.units import MIB

SCHEMA_VERSION = 1
_JOB = ".job.json"
_LOCK = ".lock"
_SLACK_BYTES = 64 * MIB  # for tokenizer and configuration

Prepare = Callable[[Path], Make]
"""Given the hidden folder, where it may keep what took long to find out, says how each tensor is made."""
Begun = Callable[[int, int], Callable[[int], object]]


@dataclass(frozen=True)
class Job:
    """What is to be made.

    Args:
        source: the folder that all but the weights are copied from.
        files: the weights of the result.
        target: the folder to make.
        format_name: what config.json says of the weights then.
        made_from: all that the result depends on, as JSON.
        record: written beside the weights where the folder is one of llmrun's own.
    """

    source: Path
    files: tuple[Shard, ...]
    target: Path
    format_name: str
    made_from: str
    record: Record | None = None

    @property
    def partial(self) -> Path:
        """The hidden folder that it is made in."""
        return self.target.parent / f".partial-{self.target.name}"

    @property
    def nbytes(self) -> int:
        """Bytes of the weights of the result."""
        return sum(shard.nbytes for shard in self.files)


def made_from(source: Path, weights: Iterable[str], files: Sequence[Shard], **more: object) -> str:
    """What a job depends on: the files ``weights`` of the folder ``source`` as they are now, the result, and more."""
    status = [(file, (source / file).stat()) for file in sorted(weights)]
    return json.dumps(
        {
            "schema": SCHEMA_VERSION,
            "folder": str(source),
            "files": [[file, there.st_size, there.st_mtime_ns] for file, there in status],
            "shards": [[shard.file, shard.nbytes] for shard in files],
            **more,
        },
        indent=1,
    )


def run(job: Job, prepare: Prepare, begun: Begun) -> None:
    """Make the checkpoint, or what is missing of it.

    Args:
        prepare: asked once it is known that there is something to do, and room for it.
        begun: is told the bytes that are there and those of the whole; what it returns is told the bytes written.

    Raises:
        UsageError: ``output-exists``, ``output-busy``.
        CheckpointError: as what ``prepare`` gives.
        DeviceError: ``disk-full``, ``write-failed``.
        Interrupted: what was finished is kept.
    """
    if job.target.is_symlink() or (job.target.exists() and not _is_empty_folder(job.target)):
        raise UsageError(
            "output-exists", f"{job.target} is there already", hint="name another folder, or delete this one"
        )
    with writing(job.target.parent, job.nbytes), _partial(job):
        missing = [shard for shard in job.files if not _is_done(job.partial, shard)]
        check_room(job.target.parent, sum(shard.nbytes for shard in missing) + _SLACK_BYTES)
        try:
            make = prepare(job.partial)
            wrote = begun(job.nbytes - sum(shard.nbytes for shard in missing), job.nbytes)
            for shard in missing:
                _write(job, shard, make, wrote)
        except KeyboardInterrupt:
            raise _interrupted(job) from None
        _finish(job)


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
        note = job.partial / _JOB
        if not note.is_file() or note.read_text(encoding="utf-8") != job.made_from:
            _clear(job.partial)
            note.write_text(job.made_from, encoding="utf-8")
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


def _write(job: Job, shard: Shard, make: Make, wrote: Callable[[int], object]) -> None:
    unfinished = job.partial / f"{shard.file}.unfinished"
    write_shard(unfinished, shard, make, wrote)
    sync(unfinished)
    unfinished.replace(job.partial / shard.file)


def _finish(job: Job) -> None:
    """All but the weights, then the step that makes it a checkpoint."""
    copy_companions(job.source, job.partial)
    write_config(job.source, job.partial, job.format_name)
    if len(job.files) > 1:
        (job.partial / INDEX).write_text(json.dumps(index(job.files), indent=1), encoding="utf-8")
    if job.record:
        (job.partial / RECORD_FILE).write_text(json.dumps(asdict(job.record), indent=1), encoding="utf-8")
    for path in job.partial.glob(".*"):  # what the job kept for itself
        path.unlink()
    for path in job.partial.iterdir():
        sync(path)
    sync(job.partial)
    job.partial.rename(job.target)
    sync(job.target.parent)


def _interrupted(job: Job) -> Interrupted:
    done = sum(_is_done(job.partial, shard) for shard in job.files)
    return Interrupted(
        message=f"stopped by the user: {done} of {len(job.files)} files are finished and kept in {job.partial}; "
        "the same command goes on from there"
    )
