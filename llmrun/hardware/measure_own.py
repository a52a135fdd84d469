"""The layers of the checkpoint itself, computed as a run computes them, with made-up weights.

A curve over one large matrix tells what a device can do; how near to it a model comes depends on the shapes of its own
matrices and on the size of its activations. So a few of its layers are built and run, with as many bytes of weights as
no cache holds.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from llmrun.hardware.timing import median_s
from llmrun.units import MIB

OWN_TOKENS = (512, 256, 64, 1)
"""The longest first: it brings the memory in."""

LEAST_BYTES = 128 * MIB
FEW_IDS = 512
"""Rows of the embedding, of which nothing is asked here."""


def own_layers(folder: Path, limit_s: float, most_bytes: int) -> dict[str, Any]:
    """``nbytes`` of a layer, ``tokens`` and the ``seconds`` that a layer takes for so many, past tokens apart.

    Raises:
        ValueError: the layers are larger than ``most_bytes``.
        Exception: whatever transformers raises for a model that it cannot build.
    """
    import torch

    nbytes = _nbytes(folder, 2) - _nbytes(folder, 1)
    n_layers = max(2, min(_config(folder).num_hidden_layers, LEAST_BYTES // nbytes))
    if n_layers * nbytes > most_bytes:
        n_layers = 1
    if n_layers * nbytes > most_bytes:
        raise ValueError("a layer is larger than the memory for measuring")
    model = _model(folder, n_layers).to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(0.01)
    found: dict[int, float] = {}
    for tokens in OWN_TOKENS:
        ids = torch.arange(tokens).remainder(FEW_IDS)[None]
        share_s = limit_s / len(OWN_TOKENS)
        found[tokens] = median_s(partial(model, ids, use_cache=False), share_s, at_least=1) / n_layers
    tokens_in_order = sorted(found)
    return {"nbytes": nbytes, "tokens": tokens_in_order, "seconds": [found[tokens] for tokens in tokens_in_order]}


def _nbytes(folder: Path, n_layers: int) -> int:
    return sum(parameter.nbytes for parameter in _model(folder, n_layers).parameters())


def _model(folder: Path, n_layers: int) -> Any:  # noqa: ANN401
    import torch
    from transformers import AutoModel

    config = _config(folder)
    config.num_hidden_layers = n_layers
    config.vocab_size = FEW_IDS
    config.pad_token_id = None
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:n_layers]
    with torch.device("meta"):
        return AutoModel.from_config(config, dtype=config.dtype or torch.bfloat16, attn_implementation="sdpa").eval()


def _config(folder: Path) -> Any:  # noqa: ANN401
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True)
