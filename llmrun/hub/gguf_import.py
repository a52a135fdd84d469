"""A .gguf file becomes a checkpoint that transformers itself can load: bf16 safetensors, config, tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmrun.checkpoint import HeadersOnly, ModelSpec, read_spec, spec_from_headers
from llmrun.errors import CheckpointError
from llmrun.hub import gguf_family as family_table
from llmrun.hub.disk import check_room, writing
from llmrun.hub.folder import CONFIG, WEIGHTS
from llmrun.hub.gguf_family import ROPE_TENSORS, Family, config_fields, family_of, hf_name
from llmrun.hub.gguf_header import GgufHeader, read_header
from llmrun.hub.gguf_tokenizer import save_tokenizer
from llmrun.hub.gguf_weights import Piece, can_dequantise, read_floats, safetensors_header, write_safetensors
from llmrun.hub.model import Notify, Origin
from llmrun.hub.store import Record, build, find, models_folder, safe_name
from llmrun.units import format_bytes

_SLACK_BYTES = 64 << 20  # for tokenizer and config, with room to spare


def import_gguf(path: Path, *, notify: Notify) -> Path:
    """The checkpoint made from a .gguf file of the user's; made on the first call, found on the later ones.

    A file that has been changed since (path, size or time) is imported anew.

    Raises:
        CheckpointError: the file is not there, broken, truncated, or of a kind that cannot be imported.
        DeviceError: ``disk-full``, ``write-failed``.
    """
    path, target = target_of(path)
    return import_as(target, path, Record(path.stem, Origin.GGUF, str(path)), notify=notify)


def gguf_spec(path: Path, *, name: str) -> ModelSpec:
    """The checkpoint that a .gguf file is, or would be, imported as; imports nothing, reads the header only.

    Raises:
        CheckpointError: as ``import_gguf``.
    """
    path, target = target_of(path)
    if (done := find(target)) is not None:
        return read_spec(done, name=name)
    _, family, fields, pieces = _described(path)
    config = fields | {"model_type": family.model_type, "architectures": [family.architecture]}
    beginnings = {CONFIG: json.dumps(config).encode(), WEIGHTS: safetensors_header(pieces)}
    size = len(beginnings[WEIGHTS]) + sum(piece.nbytes for piece in pieces)
    return spec_from_headers(HeadersOnly(f"gguf://{path}", beginnings, {WEIGHTS: size}), name=name)


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


def import_as(target: Path, source: Path, record: Record, *, notify: Notify) -> Path:
    """The checkpoint ``target``, made from ``source`` where it is not there yet.

    Raises: as ``import_gguf``.
    """
    if (done := find(target)) is not None:
        return done
    header, family, fields, pieces = _described(source)
    needed_bytes = sum(piece.nbytes for piece in pieces) + _SLACK_BYTES
    check_room(target.parent, needed_bytes)
    notify(f"importing {source.name} ({family.architecture}) as bf16 to {target}, {format_bytes(needed_bytes)} at most")

    def fill(folder: Path) -> None:
        _save_config(folder, header, family, fields, pieces)
        save_tokenizer(source, folder)
        with _progress(sum(piece.nbytes for piece in pieces)) as bar:
            write_safetensors(source, folder / WEIGHTS, pieces, bar.update)

    with writing(target.parent, needed_bytes):
        return build(target, record, fill)


def _described(source: Path) -> tuple[GgufHeader, Family, dict[str, Any], list[Piece]]:
    header = read_header(source)
    family = family_of(header)
    fields = config_fields(header, family, _rope_factors(header))
    return header, family, fields, _pieces(header, family, fields)


def _pieces(header: GgufHeader, family: Family, fields: Mapping[str, Any]) -> list[Piece]:
    """What is to be written, in the order in which a forward pass needs it."""
    pieces = []
    for tensor in header.tensors:
        if tensor.name in ROPE_TENSORS:
            continue
        name = hf_name(family, tensor.name)
        if name is None:
            raise _refused(header, f"has a tensor {tensor.name!r} that {family.architecture} does not")
        if not can_dequantise(tensor.ggml_type):
            raise _refused(
                header, f"stores {tensor.name!r} in a type (number {tensor.ggml_type}) that gguf cannot undo"
            )
        paired = family.rotary_pairs and re.search(r"\.attn_[qk]\.", tensor.name)
        minus_one = family.norms_plus_one and tensor.name.endswith("norm.weight")
        pieces.append(Piece(name, tensor, minus_one, fields["head_dim"] if paired else None))
    return sorted(pieces, key=lambda piece: _order(piece.name))


def _order(name: str) -> tuple[int, int]:
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    if layer:
        return 1, int(layer[1])
    return (0 if name.startswith("model.embed_tokens") else 2), 0


def _rope_factors(header: GgufHeader) -> dict[str, Sequence[float]]:
    there = [tensor for tensor in header.tensors if tensor.name in ROPE_TENSORS and can_dequantise(tensor.ggml_type)]
    return {tensor.name: read_floats(header.path, tensor).tolist() for tensor in there}


def _save_config(
    folder: Path, header: GgufHeader, family: Family, fields: Mapping[str, Any], pieces: Sequence[Piece]
) -> None:
    """Write the config, once transformers has built the (empty) model from it and every tensor has its place."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    try:
        config = AutoConfig.for_model(family.model_type, **fields)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers raises whatever a hostile or odd header makes it stumble over
        raise _refused(header, f"describes a model that transformers refuses: {error}") from error
    _check_shapes(header, {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}, pieces, fields)
    config.architectures = [family.architecture]
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    GenerationConfig(**family_table.token_ids(header)).save_pretrained(folder)


def _check_shapes(
    header: GgufHeader, wanted: dict[str, tuple[int, ...]], pieces: Sequence[Piece], fields: Mapping[str, Any]
) -> None:
    if fields["tie_word_embeddings"]:
        wanted.pop("lm_head.weight", None)
    there = {piece.name: piece.tensor.shape for piece in pieces}
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) != there.get(name):
            raise CheckpointError(
                "broken-gguf",
                f"{header.path}: tensor {name!r} has shape {there.get(name, 'none')}, "
                f"by the metadata it is {wanted.get(name, 'none')}",
            )


@contextmanager
def _progress(total_bytes: int) -> Iterator[Any]:
    from huggingface_hub.utils import tqdm

    # disable=None: a bar only where stderr is a terminal
    with tqdm(total=total_bytes, unit="B", unit_scale=True, desc="importing", disable=None, leave=False) as bar:
        yield bar


def _refused(header: GgufHeader, what: str) -> CheckpointError:
    return CheckpointError("gguf-unsupported", f"{header.path} {what}")
