"""Is this folder a checkpoint that can be run? Looks at names only, reads no weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

from llmrun.checkpoint.listed import LISTED_FILE
from llmrun.checkpoint.tokenizer_files import has_tokenizer
from llmrun.errors import CheckpointError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def check_folder(folder: Path) -> Path:
    """The absolute path of a folder that has a config and safetensors, or a table of the tensors in another file.

    Raises:
        CheckpointError: ``unreadable``, ``no-config``, ``pickle-checkpoint``, ``gguf-in-folder``,
            ``no-weights``, ``missing-shard``.
    """
    names = _names(folder)
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights and LISTED_FILE not in names:
        raise _without_safetensors(folder, names)
    if CONFIG not in names:
        raise CheckpointError(
            "no-config",
            f"{folder} has {weights[0] if weights else LISTED_FILE} but no {CONFIG}",
            hint=f"copy the {CONFIG} of the model into the folder: it says what the tensors are",
        )
    missing = _missing_shards(folder)
    if missing:
        raise CheckpointError(
            "missing-shard",
            f"{folder} lacks {len(missing)} of the files that its index names, the first is {missing[0]}",
            hint="copy or download the rest of the checkpoint",
        )
    return folder.absolute()


def is_complete(folder: Path) -> bool:
    """Whether config, every shard and a tokenizer are there: a broken-off download is not."""
    try:
        check_folder(folder)
    except CheckpointError:
        return False
    return has_tokenizer(folder)


def nbytes(folder: Path) -> int:
    """Bytes of the files in a folder; links count as what they point to."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _names(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise CheckpointError("unreadable", f"{folder} cannot be read: {error.strerror}") from error


def _missing_shards(folder: Path) -> list[str]:
    index = folder / INDEX
    if not index.is_file():
        return _missing_by_name(folder)
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError("broken-index", f"{index} is not an index of shards: {error}") from error
    return sorted(shard for shard in shards if not (folder / str(shard)).is_file())


def _missing_by_name(folder: Path) -> list[str]:
    """Without an index the names still say how many shards there are: model-00001-of-00004.safetensors."""
    shards = [match for path in folder.iterdir() if (match := _SHARD.fullmatch(path.name))]
    wanted = {f"{stem}-{part:05}-of-{n}.safetensors" for stem, n in _series(shards) for part in range(1, int(n) + 1)}
    return sorted(wanted - {match[0] for match in shards})


def _series(shards: list[re.Match[str]]) -> set[tuple[str, str]]:
    return {(match[1], match[2]) for match in shards}


def _without_safetensors(folder: Path, names: set[str]) -> CheckpointError:
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if pickles:
        return CheckpointError(
            "pickle-checkpoint",
            f"{folder} has its weights only as pickles ({pickles[0]}): loading one runs whatever code is in it",
            hint="take the safetensors of the model, or convert it with transformers: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)",
        )
    if ggufs:
        return CheckpointError(
            "gguf-in-folder",
            f"{folder} has no safetensors, but {ggufs[0]}",
            hint=f"name the file itself: {folder / ggufs[0]}",
        )
    return CheckpointError(
        "no-weights", f"{folder} has no safetensors files", hint="`llmrun list` shows the models here"
    )
