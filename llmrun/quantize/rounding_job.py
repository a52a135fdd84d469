"""The job of ``llmrun quantize``: matrices are rounded to formats of fewer bits, best where a text uses them most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.checkpoint.recipe import Recipe, formats
from llmrun.checkpoint.spec import ModelSpec
from llmrun.checkpoint.written import SHARD_BYTES, shards
from llmrun.hub.store import Record
from llmrun.quantize.importance import load_importance, save_importance
from llmrun.quantize.job import Job, Prepare, made_from
from llmrun.quantize.writer import Make, rounded

_IMPORTANCE = ".importance.safetensors"

Importance = Callable[[], Mapping[str, Tensor]]


def rounding_job(
    spec: ModelSpec,
    recipe: Recipe,
    target: Path,
    *,
    record: Record | None = None,
    calibration: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Job:
    """The job that gives the tensors of ``spec`` the formats of ``recipe``.

    Args:
        spec: the model as it is.
        target: the folder to make.
        record: written beside the weights where the folder is one of llmrun's own.
        calibration: what the importance of columns comes from, ``None`` for none; another one is another job.
    """
    files = shards(spec, formats(spec, recipe), shard_bytes)
    source, weights = Path(spec.folder), {tensor.file for unit in spec.units for tensor in unit.tensors}
    said = made_from(source, weights, files, fingerprint=fingerprint(spec), format=recipe.name, calibration=calibration)
    return Job(source, files, target, recipe.name, said, record)


def rounding(spec: ModelSpec, importance: Importance | None, chunk_weights: int) -> Prepare:
    """How its tensors are made.

    Args:
        importance: gives the importance of columns by name of tensor; not asked where an earlier run kept it, since it
            takes a pass over the model.
        chunk_weights: weights that are worked on at once.
    """

    def prepare(folder: Path) -> Make:
        path = folder / _IMPORTANCE
        if importance and not path.is_file():
            save_importance(path, importance())
        return rounded(spec, load_importance(path) if importance else {}, chunk_weights)

    return prepare
