"""A .gguf file becomes a model: config, tokenizer and a table of its tensors in the cache; its weights stay in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmrun.checkpoint import HeadersOnly, ModelSpec, TensorSpec, read_spec, spec_from_headers
from llmrun.checkpoint.listed import LISTED_FILE, Listed
from llmrun.errors import CheckpointError
from llmrun.hub import gguf_family as family_table
from llmrun.hub import store
from llmrun.hub.disk import check_room, writing
from llmrun.hub.folder import CONFIG
from llmrun.hub.gguf_family import Family, config_fields, family_of
from llmrun.hub.gguf_header import GgufHeader, read_header
from llmrun.hub.gguf_tensors import rope_factors, tensors_of
from llmrun.hub.gguf_tokenizer import save_tokenizer
from llmrun.hub.model import Notify, Origin
from llmrun.hub.store import Record, build, find, models_folder, safe_name

WEIGHTS = "model.gguf"  # what the file is called in the model's folder
NEEDED_BYTES = 64 << 20  # for tokenizer and config, with room to spare


@dataclass(frozen=True)
class _Described:
    """What a .gguf file says of itself, as transformers and the checkpoint's reader want it."""

    header: GgufHeader
    family: Family
    fields: dict[str, Any]  # of config.json
    listed: Listed


def import_gguf(path: Path, *, notify: Notify) -> Path:
    """The model made of a .gguf file of the user's; made on the first call, found on the later ones.

    A file that has been changed since (path, size or time) is imported anew, and its former import removed.

    Raises:
        CheckpointError: the file is not there, broken, truncated, or of a kind that cannot be imported.
        DeviceError: ``disk-full``, ``write-failed``.
    """
    path, target = target_of(path)
    if (done := find(target)) is not None:
        return done
    folder = import_as(target, path, Record(path.stem, Origin.GGUF, str(path)), notify=notify)
    _remove_former(path, folder)
    return folder


def gguf_spec(path: Path, *, name: str) -> ModelSpec:
    """The checkpoint that a .gguf file is, or would be, imported as; imports nothing, reads the header only.

    Raises:
        CheckpointError: as ``import_gguf``.
    """
    path, target = target_of(path)
    if (done := find(target)) is not None:
        return read_spec(done, name=name)
    said = _described(path)
    config = said.fields | {"model_type": said.family.model_type, "architectures": [said.family.architecture]}
    beginnings = {CONFIG: json.dumps(config).encode(), LISTED_FILE: said.listed.to_json(), WEIGHTS: b""}
    return spec_from_headers(HeadersOnly(f"gguf://{path}", beginnings, {WEIGHTS: said.listed.nbytes}), name=name)


def target_of(path: Path) -> tuple[Path, Path]:
    """The real path of a .gguf file, and the folder that it is imported to.

    Raises:
        CheckpointError: ``gguf-unreadable``.
    """
    try:
        path = path.resolve(strict=True)
        status = path.stat()
    except OSError as error:
        raise CheckpointError("gguf-unreadable", f"{path}: {error.strerror}") from error
    key = hashlib.sha256(f"{path}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:12]
    return path, models_folder() / f"{safe_name(path.stem)}-{key}"


def import_as(target: Path, source: Path, record: Record, *, notify: Notify, take: bool = False) -> Path:
    """The model ``target``, made of ``source`` where it is not there yet; ``take`` moves ``source`` into it.

    Raises: as ``import_gguf``.
    """
    if (done := find(target)) is not None:
        return done
    said = _described(source)
    check_room(target.parent, NEEDED_BYTES)
    where = "goes with it" if take else "is read where it is"
    notify(f"importing {source.name} ({said.family.architecture}) to {target}; the file itself {where}")

    def fill(folder: Path) -> None:
        _save_config(folder, said)
        save_tokenizer(source, folder)
        (folder / LISTED_FILE).write_bytes((_moved if take else _linked)(said.listed, folder).to_json())

    with writing(target.parent, NEEDED_BYTES):
        return build(target, record, fill)


def _moved(listed: Listed, folder: Path) -> Listed:
    """The file moved into the model's folder; there nobody changes it."""
    Path(listed.source).rename(folder / WEIGHTS)
    return replace(listed, source=WEIGHTS, written_ns=None)


def _linked(listed: Listed, folder: Path) -> Listed:
    """The file linked from the model's folder, so that all of the model is found there."""
    try:
        (folder / WEIGHTS).symlink_to(listed.source)
    except OSError:  # Windows does not let everyone make links
        return replace(listed, file=listed.source)
    return listed


def _described(source: Path) -> _Described:
    status = source.stat()  # before the header is read: a later change is then noticed
    header = read_header(source)
    family = family_of(header)
    fields = config_fields(header, family, rope_factors(header))
    tensors = tensors_of(header, family, fields["head_dim"], WEIGHTS)
    return _Described(header, family, fields, Listed(WEIGHTS, str(source), status.st_size, status.st_mtime_ns, tensors))


def _remove_former(source: Path, target: Path) -> None:
    """What an earlier state of the file was imported as has lost its weights."""
    for record, folder in list(store.imported()):
        former = (record.origin, record.source) == (Origin.GGUF, str(source)) and folder != target
        if former and (folder / LISTED_FILE).is_file():
            store.remove(folder)


def _save_config(folder: Path, said: _Described) -> None:
    """Write the config, once transformers has built the (empty) model from it and every tensor has its place."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    header, family = said.header, said.family
    try:
        config = AutoConfig.for_model(family.model_type, **said.fields)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers raises whatever a hostile or odd header makes it stumble over
        raise CheckpointError(
            "gguf-unsupported", f"{header.path} describes a model that transformers refuses: {error}"
        ) from error
    shapes = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
    _check_shapes(header, shapes, said.listed.tensors, said.fields)
    config.architectures = [family.architecture]
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    GenerationConfig(**family_table.token_ids(header)).save_pretrained(folder)


def _check_shapes(
    header: GgufHeader, wanted: dict[str, tuple[int, ...]], tensors: Sequence[TensorSpec], fields: Mapping[str, Any]
) -> None:
    if fields["tie_word_embeddings"]:
        wanted.pop("lm_head.weight", None)
    there = {tensor.name: tensor.shape for tensor in tensors}
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) != there.get(name):
            raise CheckpointError(
                "broken-gguf",
                f"{header.path}: tensor {name!r} has shape {there.get(name, 'none')}, "
                f"by the metadata it is {wanted.get(name, 'none')}",
            )
