"""The layers of the checkpoint itself, computed as a run computes them, with made-up weights.

A curve over one large matrix tells what a device can do; how near to it a model comes depends on the shapes of its own
matrices, its heads and the size of its activations. So a few of its layers are built and run, with as many bytes of
weights as no cache holds and in memory like that of a run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from llmrun.formats import FORMATS, packed_bytes
from llmrun.hardware.buffer import allocate
from llmrun.hardware.heap import STEP_TOKENS, kept_tokens
from llmrun.hardware.measure_compute import attend_newest
from llmrun.hardware.speeds import LayerSpeed
from llmrun.hardware.timing import median_s, once_s
from llmrun.settings import DEFAULT_PREFILL_CHUNK_TOKENS
from llmrun.units import MIB

TOKEN_SHARE, CHUNK_SHARE, PART_SHARES = 0.25, 0.3, (0.1, 0.15)
"""Of the time: for one token, for a whole chunk of a prompt, and for 64 and half of a chunk."""

BARE_SHARE = 0.03
"""For what a model without layers takes, which is not theirs."""

PAST_SHARE = 0.075
PAST_TOKENS, CHUNK_TOKENS = LayerSpeed.PAST_TOKENS, LayerSpeed.CHUNK_TOKENS
LEAST_BYTES = 128 * MIB
STATE_BYTES = 4  # of an activation on the CPU
FEW_IDS = 512
"""Rows of the embedding, of which nothing is asked here."""

SAMPLES = 5
ROUNDED_ROWS, ROUNDED_COLUMNS = 512, 4096
ALIGNMENT_BYTES = 4096
FILLING = 0x11
"""A byte that makes small ordinary numbers in every format."""


def own_layers(
    folder: Path, formats: Mapping[str, str], limit_s: float, most_bytes: int, *, fine: bool = True
) -> Iterator[tuple[str, float]]:
    """Figures by name as they are known, in about ``limit_s`` after the weights are there.

    ``nbytes`` of a layer; ``seconds.64`` of a layer for so many tokens, none before them, up to the chunk in which a
    run takes a prompt; ``first_s``, what the first pass takes beyond a later one; ``token_past_s`` and
    ``chunk_past_s``, what 4,096 tokens before them add for one and for 512.

    ``fine`` is how products are computed, as ``kernels.multiply`` has it.

    Memory: the weights of at least 128 MiB of layers, once more as much for the past, at most ``most_bytes``.

    Raises:
        ValueError: a layer is larger than ``most_bytes``.
        Exception: whatever transformers raises for a model that it cannot build.
    """
    import torch

    nbytes = _nbytes(folder, 2, formats) - _nbytes(folder, 1, formats)
    if nbytes > most_bytes:
        raise ValueError("a layer is larger than the memory for measuring")
    yield "nbytes", nbytes
    n_layers = min(_config(folder).num_hidden_layers, -(-LEAST_BYTES // nbytes))
    model, bare = (_filled(_model(folder, count), formats, fine) for count in (n_layers, 0))
    deadline_s = time.perf_counter() + limit_s
    around_s = median_s(partial(bare, torch.zeros(1, 1, dtype=torch.long), use_cache=False), BARE_SHARE * limit_s)
    token_s = 0.0  # of those in the first pass
    for tokens, share in _own_tokens(_config(folder)).items():
        calls = (deadline_s - time.perf_counter()) / (token_s * tokens) if token_s else SAMPLES + 1
        if calls < 2:  # one to warm up, one to count
            continue
        ids = torch.arange(tokens).remainder(FEW_IDS)[None]
        work = partial(model, ids, use_cache=False)
        first_s = 0.0 if token_s else once_s(work)
        all_s = median_s(work, share * limit_s, at_least=SAMPLES if calls > SAMPLES else 1)
        if first_s:
            yield "first_s", max(0.0, first_s - all_s)
        token_s = token_s or all_s / tokens
        yield f"seconds.{tokens}", max(all_s / 2, all_s - around_s) / n_layers
    yield from _past(folder, PAST_SHARE * limit_s, min(LEAST_BYTES, most_bytes))


def own_rounding(folder: Path, formats: Mapping[str, str]) -> float | None:
    """Seconds of rounding the weights of a layer to its formats, from that of most of them; ``None`` without kernels.

    Memory: some megabytes.
    """
    import torch

    from llmrun.kernels.multiply import kernels

    own, packed = kernels(torch.get_num_threads()), [name for name in formats.values() if not FORMATS[name].is_plain]
    if own is None or not packed:
        return None
    target = FORMATS[max(set(packed), key=packed.count)]
    plain = torch.randn(ROUNDED_ROWS, ROUNDED_COLUMNS).bfloat16().view(torch.uint8)
    importance = torch.ones(ROUNDED_COLUMNS)  # as a prompt gives it
    work = partial(own.rounded, plain, FORMATS["BF16"], ROUNDED_COLUMNS, target, importance=importance)
    seconds = median_s(work, 0.0, at_least=SAMPLES)
    nbytes = _nbytes(folder, 2, formats) - _nbytes(folder, 1, formats)
    return seconds * nbytes / (ROUNDED_ROWS * target.row_bytes(ROUNDED_COLUMNS))


def _past(folder: Path, limit_s: float, memory_bytes: int) -> Iterator[tuple[str, float]]:
    """What attention to the past takes in a layer; nothing of a model whose heads are not all alike."""
    import torch

    from llmrun.kernels.attend import attend_one

    config = _config(folder)
    heads, kv_heads = (getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
    if not heads or not kv_heads or getattr(config, "kv_lora_rank", None):
        return
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kind = torch.float16
    n_pairs = max(1, memory_bytes // (2 * kv_heads * PAST_TOKENS * dim * kind.itemsize))
    pairs = torch.rand(kv_heads, PAST_TOKENS, dim).to(kind).expand(n_pairs, 2, 1, -1, -1, -1).contiguous()
    turn = count()

    def token() -> None:
        keys, values = pairs[next(turn) % n_pairs]
        attend_one(one, keys, values, dim**-0.5)

    one = torch.rand(1, heads, 1, dim)
    yield "token_past_s", median_s(token, limit_s, at_least=SAMPLES)
    chunk = torch.rand(1, heads, CHUNK_TOKENS, dim)
    keys, values = pairs[0]
    seen = 1 - CHUNK_TOKENS / 2 / PAST_TOKENS  # on the average, of them
    yield "chunk_past_s", median_s(lambda: attend_newest(chunk, keys, values), limit_s, at_least=SAMPLES) / seen


def _own_tokens(config: Any) -> dict[int, float]:  # noqa: ANN401
    """Numbers of tokens, and the share of the time for each.

    A few come first, which tells how often more of them can be computed in the time.
    """
    widest = max(config.hidden_size, getattr(config, "intermediate_size", None) or 0)
    chunk = kept_tokens(widest * STATE_BYTES, DEFAULT_PREFILL_CHUNK_TOKENS)
    few, half = PART_SHARES
    return {STEP_TOKENS: few, 1: TOKEN_SHARE, chunk: CHUNK_SHARE, chunk // 2: half}


def _nbytes(folder: Path, n_layers: int, formats: Mapping[str, str]) -> int:
    model = _model(folder, n_layers)
    return sum(packed_bytes(parameter.shape, _format(name, formats)) for name, parameter in model.named_parameters())


def _format(parameter: str, formats: Mapping[str, str]) -> str:
    """Of a parameter of a layer that of the checkpoint's; F32 of what stands around the layers."""
    return next((fmt for name, fmt in formats.items() if parameter.endswith(f".{name}")), "F32")


def _model(folder: Path, n_layers: int) -> Any:  # noqa: ANN401
    import torch
    from transformers import AutoModel

    from llmrun.kernels.own_modules import use_own_modules

    config = _config(folder)
    config.num_hidden_layers = n_layers
    config.vocab_size = FEW_IDS
    config.pad_token_id = None
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:n_layers]
    with torch.device("meta"):
        model = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
    use_own_modules(model)  # as a run does
    return model


def _filled(model: Any, formats: Mapping[str, str], fine: bool) -> Any:  # noqa: ANN401
    """The model with weights in one piece of memory such as the runtime's, in huge pages where there are any."""
    import torch

    from llmrun.kernels.packed import as_weight

    parameters = {name: (p.shape, _format(name, formats)) for name, p in model.named_parameters()}
    sizes = {name: packed_bytes(*kind) for name, kind in parameters.items()}
    memory, begin = torch.frombuffer(allocate(sum(map(_rounded, sizes.values()))), dtype=torch.uint8), 0
    memory.fill_(FILLING)
    weights = {}
    for name, (shape, fmt) in parameters.items():
        data = memory[begin : begin + sizes[name]]
        weights[name] = as_weight(data, fmt, tuple(shape), torch.float32, fine=fine)
        begin += _rounded(sizes[name])
    model.load_state_dict(weights, strict=False, assign=True)
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.full_like(buffer, 0.01, device="cpu"))
    return model


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _config(folder: Path) -> Any:  # noqa: ANN401
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True)
