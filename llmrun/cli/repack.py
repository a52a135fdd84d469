"""A model as it can be run: one that others quantised to integers is repacked first, once, and said to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmrun.cli.bar import progress
from llmrun.units import format_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from llmrun.checkpoint.integers import Source
    from llmrun.checkpoint.spec import ModelSpec
    from llmrun.hub import LocalModel
    from llmrun.quantize.job import Job

Notify = Callable[[str], None]


def runnable_spec(
    local: LocalModel, notify: Notify, *, ram_bytes: int | None = None, trust_remote_code: bool = False
) -> ModelSpec:
    """What the checkpoint holds, or its repacked copy, which is made where it has to be.

    Args:
        notify: told what is done, and the space that it takes, before that.
        ram_bytes: memory for it; ``None``: what is free, less some headroom.

    Raises:
        CheckpointError: as ``read_spec``; ``not-finite``.
        PlanError: ``quantize-over-budget``.
        DeviceError: ``disk-full``, ``write-failed``.
        UsageError: ``output-busy``.
        Interrupted: what was finished is kept.
    """
    from llmrun.checkpoint.read import read_spec

    spec = read_spec(local.folder, name=local.name, trust_remote_code=trust_remote_code)
    if spec.is_local:
        return spec
    folder = _repack(local.folder, spec, notify, ram_bytes, trust_remote_code=trust_remote_code)
    return read_spec(folder, name=local.name, trust_remote_code=trust_remote_code)


def runnable_folder(local: LocalModel, notify: Notify) -> Path:
    """The folder of a model, or of its repacked copy, as ``runnable_spec``; only config.json is read of others."""
    from llmrun.checkpoint.files import LocalFiles
    from llmrun.checkpoint.quantised import is_repackable
    from llmrun.checkpoint.read import read_spec

    if not is_repackable(LocalFiles(local.folder)):
        return local.folder
    # neither describing a model nor repacking it runs any code of it
    spec = read_spec(local.folder, name=local.name, trust_remote_code=True)
    return _repack(local.folder, spec, notify, None, trust_remote_code=True)


def _repack(folder: Path, spec: ModelSpec, notify: Notify, ram_bytes: int | None, *, trust_remote_code: bool) -> Path:
    """Make the repacked copy of the checkpoint in ``folder``, which will be ``spec``."""
    from llmrun.hub.repacked import record_of, remove_former, target_of
    from llmrun.quantize.job import run
    from llmrun.quantize.repack import repack_job, repacking, source_of

    source = source_of(folder, trust_remote_code=trust_remote_code)
    job = repack_job(folder, source, spec, target_of(folder), record_of(folder))
    for line in _told(job, source, spec):
        notify(line)
    weights = _chunk_weights(job, source, ram_bytes)
    with progress("repacking") as bar:
        run(job, repacking(folder, source, weights), bar)
    remove_former(folder, job.target)
    return job.target


def _chunk_weights(job: Job, source: Source, ram_bytes: int | None) -> int:
    from llmrun.hardware import default_budget, probe
    from llmrun.hardware.process import process_memory
    from llmrun.quantize.memory import chunk_weights
    from llmrun.quantize.repack import held_bytes

    if ram_bytes is None:
        ram_bytes = default_budget(probe(job.target.parent)).ram_bytes
    return chunk_weights(ram_bytes, process_memory().rss_bytes, held_bytes=held_bytes(source))


def _told(job: Job, source: Source, spec: ModelSpec) -> list[str]:
    """What is done and why, what it takes, where it is and how to get rid of it."""
    from llmrun.formats import weight_format
    from llmrun.quantize.report import becomes

    source_bytes = sum(matrix.source_bytes for matrix in source.matrices.values())
    source_bytes += sum(tensor.nbytes for tensor in source.kept.values())
    lines = [
        f"{spec.name} is {source.scheme.words}, which cannot be multiplied by as it lies: it is repacked once",
        f"{format_bytes(source_bytes)} to {becomes(job.files)}",
    ]
    plain = [matrix.tensor for matrix in source.matrices.values() if weight_format(matrix.becomes).is_plain]
    if plain:
        size = format_bytes(sum(tensor.nbytes for tensor in plain))
        lines.append(f"{len(plain)} of its matrices become {plain[0].dtype} ({size}): {_why(source)}")
    name = job.record.name if job.record else job.target.name
    return [*lines, f"to {job.target}; `llmrun chat {name}` runs it too, `llmrun rm {name}` deletes it"]


def _why(source: Source) -> str:
    if source.scheme.bits == 8 and not source.scheme.symmetric:
        return "no block of 8 bits holds a zero"
    return "their columns are not in runs of 32 that share a scale"
