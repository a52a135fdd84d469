"""Multiplying by weights, attention, reading memory: the same for every device, done as the runtime does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from llmrun.hardware.speeds import Spread
from llmrun.hardware.target import Target
from llmrun.hardware.timing import median_s, samples_s, spread
from llmrun.units import MIB

if TYPE_CHECKING:
    import torch

TOKENS = (1, 512, 64, 8, 2, 16, 128, 4, 32, 256)
"""What BF16 is multiplied with, the most decisive first: the ends of the curve, then what lies between."""

FEW_TOKENS = (1, 512, 16)
"""What the dtypes are that few checkpoints have."""

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
COLUMNS = 4096
MATRIX_BYTES = 86 * MIB
"""Of BF16 a matrix of 4096 x 11008, as a 7B model has; two of them take turns, so that no cache holds one."""

SMALL_MATRIX_BYTES, MANY_TOKENS = 16 * MIB, 64
FEWEST_ROWS, GROWTH = 64, 4
LEAST_S = 0.1
"""For a point of a curve, even where no time is left."""

PAST_TOKENS, CHUNK_TOKENS, CHUNK_PAST_TOKENS, HEAD_DIM = 4096, 512, 1536, 128


def memory_speed(target: Target, limit_s: float, at_least: int = 12) -> Spread:
    """Bytes of the pool read a second, by adding up its 64-bit integers (the fastest reader that torch has)."""
    import torch

    words = target.pool.view(torch.int64)
    found = samples_s(words.sum, limit_s, at_least=at_least, synchronize=target.synchronize)
    return spread([target.pool.nbytes / seconds for seconds in found])


def weight_rate(target: Target, dtype: str, tokens: int, limit_s: float) -> float:
    """Bytes of weights a second in a product with so many tokens at once, in about ``limit_s``.

    Of one token the whole matrix is multiplied. Of more, ever more of its rows as long as that takes less than half of
    the time: a slow device gets few, a busy one, on which the shortest call waits for its turn, many all the same.
    """
    kind, limit_s = torch_type(dtype), max(limit_s, LEAST_S)
    row_bytes = COLUMNS * kind.itemsize
    most_rows = min(_matrix_bytes(target, tokens), target.pool.nbytes // 2) // row_bytes
    rows = min(most_rows, max(FEWEST_ROWS, most_rows // tokens))
    while True:
        product = _product(target, kind, rows, tokens)
        took_s = median_s(product, 0.0, at_least=1, synchronize=target.synchronize)
        if rows == most_rows or took_s > limit_s / 2:
            break
        rows = min(GROWTH * rows, most_rows)
    if took_s < limit_s / 2:
        took_s = median_s(product, limit_s, synchronize=target.synchronize)
    return rows * row_bytes / took_s


def _matrix_bytes(target: Target, tokens: int) -> int:
    """Of many tokens the CPU's FLOP/s are asked, not its memory's; a GPU has more units than a small matrix feeds."""
    return SMALL_MATRIX_BYTES if tokens >= MANY_TOKENS and target.device.type == "cpu" else MATRIX_BYTES


def _product(target: Target, dtype: torch.dtype, rows: int, tokens: int) -> Callable[[], object]:
    import torch

    states = target.numbers(target.states_dtype(dtype), tokens, COLUMNS)
    turn = iter(range(1 << 62))
    return lambda: torch.nn.functional.linear(states, target.weight(dtype, rows, COLUMNS, next(turn)))


def torch_type(dtype: str) -> torch.dtype:
    """torch's name for a dtype of safetensors."""
    import torch

    kind: torch.dtype = getattr(torch, DTYPES[dtype])
    return kind


def cache_type(target: Target, dtype: str) -> torch.dtype:
    """What keys and values are kept in beside weights of a dtype: fp16 on the CPU."""
    import torch

    kind = torch_type(dtype)
    return torch.float16 if target.device.type == "cpu" and kind == torch.bfloat16 else kind


@dataclass(frozen=True)
class AttentionSpeed:
    """Attention of one token, whichever of the first two takes longer; and of a chunk of a prompt."""

    kv_bytes_per_s: float
    kv_flops_per_s: float
    attention_flops_per_s: float


def attention_speed(target: Target, dtype: str, limit_s: float) -> AttentionSpeed:
    """Attention as transformers calls it.

    One token over a long past, once with as many KV heads as query heads and once with a quarter: the first asks most
    of the memory, the second of the processor for its bytes.
    """
    pairs = [_token(target, dtype, heads, kv_heads, limit_s * 0.3) for heads, kv_heads in ((32, 32), (32, 8))]
    return AttentionSpeed(
        kv_bytes_per_s=max(nbytes / seconds for nbytes, _, seconds in pairs),
        kv_flops_per_s=max(flops / seconds for _, flops, seconds in pairs),
        attention_flops_per_s=_chunk(target, dtype, limit_s * 0.4),
    )


def _token(target: Target, dtype: str, heads: int, kv_heads: int, limit_s: float) -> tuple[int, int, float]:
    """(bytes of keys and values, FLOPs, seconds) of a token that attends to ``PAST_TOKENS``."""
    from llmrun.kernels.attend import attend_one

    kind = cache_type(target, dtype)
    nbytes = kv_heads * PAST_TOKENS * HEAD_DIM * kind.itemsize
    pool = target.pool[: target.pool.nbytes // nbytes * nbytes].view(kind)
    layers = pool.view(-1, 1, kv_heads, PAST_TOKENS, HEAD_DIM)  # keys and values of many layers, none in a cache
    query = target.numbers(target.states_dtype(kind), 1, heads, 1, HEAD_DIM)
    turn = iter(range(1 << 62))

    def work() -> None:
        index = 2 * next(turn)
        attend_one(query, layers[index % len(layers)], layers[(index + 1) % len(layers)], HEAD_DIM**-0.5)

    seconds = median_s(work, limit_s, synchronize=target.synchronize)
    return 2 * nbytes, 4 * heads * PAST_TOKENS * HEAD_DIM, seconds


def _chunk(target: Target, dtype: str, limit_s: float) -> float:
    """FLOP/s of a chunk of a prompt over what came before it: 4 x heads x tokens x tokens attended to x head size."""
    kind, heads, kv_heads = target.states_dtype(torch_type(dtype)), 8, 2
    context = CHUNK_PAST_TOKENS + CHUNK_TOKENS
    query = target.numbers(kind, 1, heads, CHUNK_TOKENS, HEAD_DIM)
    keys, values = (target.numbers(kind, 1, kv_heads, context, HEAD_DIM) for _ in range(2))
    seconds = median_s(lambda: attend_newest(query, keys, values), limit_s, synchronize=target.synchronize)
    return 4 * heads * CHUNK_TOKENS * context * HEAD_DIM / seconds


def attend_newest(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Any:  # noqa: ANN401
    """Attention of the last of the tokens in the cache, each to all before it, as the models are given it."""
    import torch

    from llmrun.kernels.attend import attend_as_stored

    attended = attend_as_stored(query, keys, values, query.shape[-1] ** -0.5)
    if attended is not None:
        return attended
    new, seen = query.shape[2], keys.shape[2]
    mask = torch.ones(1, 1, new, seen, dtype=torch.bool, device=query.device).tril(seen - new)
    return attend(query, keys.to(query.dtype), values.to(query.dtype), mask)


def attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None) -> Any:  # noqa: ANN401
    """One call of the attention that the models are built with, ``(B, H, T, D)`` each, the mask ``(B, 1, T, T')``."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    module = SimpleNamespace(num_key_value_groups=query.shape[1] // keys.shape[1], is_causal=True)
    return sdpa_attention_forward(module, query, keys, values, mask)[0]
