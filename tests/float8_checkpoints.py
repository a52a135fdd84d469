"""Tiny checkpoints in 8-bit floats as Qwen and DeepSeek, compressed-tensors and Meta publish them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_model import FAMILIES

MOST = 448.0
"""The largest float of E4M3."""


def save_float8(
    folder: Path,
    block: tuple[int, int] | None,
    config: dict[str, Any],
    *,
    family: str = "llama",
    suffix: str = "weight_scale_inv",
    scale_dtype: torch.dtype = torch.float32,
    shape_of: Callable[[torch.Tensor], torch.Tensor] = lambda scales: scales,
    **changes: Any,
) -> Any:
    """Write a model whose layers' matrices are F8_E4M3; the model with the weights that these stand for is returned.

    Args:
        block: rows and columns of a scale, ``None`` for all of the matrix; 0 columns for all of them.
        config: the ``quantization_config``.
        shape_of: what is stored of the scales of all blocks.
    """
    model = FAMILIES[family].build(**changes)
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    state = model.state_dict()
    for name, weights in list(tensors.items()):
        if weights.dim() == 2 and ".layers." in name:
            rows, columns = block or weights.shape
            scaled, scales = _rounded(weights, rows, columns or weights.shape[1], scale_dtype)
            tensors[name] = scaled.to(torch.float8_e4m3fn)
            tensors[name.replace("weight", suffix)] = shape_of(scales).contiguous()
            tensors[name.replace("weight", "input_scale")] = torch.ones(1)
            spread = _spread(scales.float(), rows, columns or weights.shape[1], weights.shape)
            state[name].copy_(tensors[name].float() * spread)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"quantization_config": config}))
    return model


def _rounded(weights: torch.Tensor, rows: int, columns: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights over their scales, and one scale a block: that with which its largest weight is the largest float."""
    strips = [strip.abs().amax(0) for strip in weights.split(rows)]
    scales = torch.stack([torch.stack([part.max() for part in strip.split(columns)]) for strip in strips])
    scales = (scales / MOST).to(dtype)
    return (weights / _spread(scales.float(), rows, columns, weights.shape)).clamp(-MOST, MOST), scales


def _spread(scales: torch.Tensor, rows: int, columns: int, shape: torch.Size) -> torch.Tensor:
    return torch.kron(scales, torch.ones(rows, columns))[: shape[0], : shape[1]]
