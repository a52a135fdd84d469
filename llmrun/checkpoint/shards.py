"""Which files of a folder are the checkpoint, and which tensors they hold."""

from __future__ import annotations

from pathlib import PurePosixPath

from llmrun.checkpoint.files import Files
from llmrun.checkpoint.header import read_header
from llmrun.checkpoint.listed import LISTED_FILE, read_listed
from llmrun.checkpoint.spec import TensorSpec
from llmrun.checkpoint.strict_json import MAX_INDEX_BYTES, read_json
from llmrun.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


def read_tensors(files: Files) -> dict[str, TensorSpec]:
    """Every tensor of a checkpoint, by name.

    As transformers does: ``model.safetensors`` if it is there, else the shards of the index, else every safetensors
    file. Without any, those of the file of another kind that llmrun has listed.

    Raises:
        CheckpointError: ``truncated-shard``, ``missing-shard``, ``missing-tensor``, ``broken-header``,
            ``broken-index``, ``pickle-checkpoint``, ``unreadable``, ``gguf-changed``, ``unsupported-format``.
    """
    names = files.names()
    if SINGLE_FILE in names:
        return _read_all(files, [SINGLE_FILE])
    if INDEX_FILE in names:
        return _read_indexed(files)
    shards = sorted(name for name in names if name.endswith(".safetensors"))
    if not shards and LISTED_FILE in names:
        return read_listed(files)
    if not shards:
        raise _no_shards(files.place, names)
    return _read_all(files, shards)


def _no_shards(place: str, names: set[str]) -> CheckpointError:
    pickles = sorted(name for name in names if name.endswith(_PICKLE_SUFFIXES))
    if not pickles:
        return CheckpointError("no-weights", f"{place} holds no .safetensors file")
    return CheckpointError(
        "pickle-checkpoint",
        f"{place} holds its weights as {pickles[0]}: a pickle can run any code when it is read, so llmrun does not",
        hint="use a revision with safetensors, or convert it: "
        "`AutoModelForCausalLM.from_pretrained(SRC).save_pretrained(DST)`",
    )


def _read_all(files: Files, shards: list[str]) -> dict[str, TensorSpec]:
    tensors: dict[str, TensorSpec] = {}
    files.expect(shards)
    for file in shards:
        for tensor in read_header(files, file):
            if tensor.name in tensors:
                other = tensors[tensor.name].file
                raise CheckpointError("broken-index", f"the tensor {tensor.name!r} is both in {other} and in {file}")
            tensors[tensor.name] = tensor
    return tensors


def _read_indexed(files: Files) -> dict[str, TensorSpec]:
    index = read_json(files, INDEX_FILE, reference="broken-index", max_bytes=MAX_INDEX_BYTES)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("broken-index", f"{INDEX_FILE} has no weight_map")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _is_inside(file):
            raise CheckpointError("broken-index", f"{INDEX_FILE} puts {name!r} into {file!r:.80}, not a file name")
    tensors = _read_all(files, sorted(set(weight_map.values())))
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].file != file:
            raise CheckpointError("missing-tensor", f"{INDEX_FILE} names {name!r} in {file}, which does not hold it")
    return tensors


def _is_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return file.endswith(".safetensors") and "\0" not in file and not path.is_absolute() and ".." not in path.parts
