"""Writes bf16 safetensors in shards with an index, tensor by tensor, holding one shard in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors.torch import save_file

SHARD_BYTES = 2 << 30
_COPIED = {".json", ".jinja", ".txt", ".model"}


class CheckpointWriter:
    """A checkpoint in ``folder``, as ``save_pretrained`` would leave it; complete when the ``with`` block ends.

    Args:
        folder: made if it is not there.
        config: becomes ``config.json``.
        like: a checkpoint whose tokenizer and generation config are copied.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], like: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._config = config
        self._like = like
        self._shard: dict[str, torch.Tensor] = {}
        self._shards: list[list[str]] = []
        self.nbytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
            self._finish()

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor, at the latest with the shard that it fills."""
        tensor = tensor.to(torch.bfloat16).contiguous()
        if self._shard and sum(held.nbytes for held in self._shard.values()) + tensor.nbytes > SHARD_BYTES:
            self._flush()
        self._shard[name] = tensor
        self.nbytes += tensor.nbytes

    def _flush(self) -> None:
        save_file(self._shard, self._part(len(self._shards)), metadata={"format": "pt"})
        self._shards.append(list(self._shard))
        self._shard = {}

    def _part(self, index: int) -> Path:
        return self._folder / f"part-{index}.safetensors"

    def _finish(self) -> None:
        weight_map = {}
        for index, names in enumerate(self._shards):
            shard = f"model-{index + 1:05d}-of-{len(self._shards):05d}.safetensors"
            self._part(index).rename(self._folder / shard)
            weight_map.update(dict.fromkeys(names, shard))
        index_json = {"metadata": {"total_size": self.nbytes}, "weight_map": weight_map}
        (self._folder / "model.safetensors.index.json").write_text(json.dumps(index_json, indent=2))
        (self._folder / "config.json").write_text(json.dumps(self._config, indent=2))
        for file in self._like.iterdir():
            is_own = "index" in file.name or file.name == "llmrun.json"  # what llmrun notes about an import of its own
            if file.suffix in _COPIED and not is_own and not (self._folder / file.name).exists():
                shutil.copy(file, self._folder / file.name)


class Noise:
    """Random bf16 tensors, cut from one random block from another place each time: fast, and incompressible."""

    def __init__(self, std: float = 0.02) -> None:
        torch.manual_seed(0)
        # an odd length, so that the rows of no matrix repeat each other
        self._block = (torch.randn((1 << 24) + 4099) * std).to(torch.bfloat16)
        self._start = 0

    def tensor(self, *shape: int) -> torch.Tensor:
        """A tensor ``shape``."""
        flat = torch.empty(torch.Size(shape).numel(), dtype=torch.bfloat16)
        self._start = (self._start + 1_037_389) % len(self._block)
        done, start = 0, self._start
        while done < len(flat):
            count = min(len(flat) - done, len(self._block) - start)
            flat[done : done + count] = self._block[start : start + count]
            done, start = done + count, 0
        return flat.reshape(shape)
