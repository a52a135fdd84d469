"""Multiplying by weights, attention, reading memory: the same for every device, done as the runtime does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from llmrun.hardware.speeds import Spread, WeightSpeed
from llmrun.hardware.target import Target
from llmrun.hardware.timing import median_s, samples_s, spread
from llmrun.units import MIB

if TYPE_CHECKING:
    import torch

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
COLUMNS = 4096
MATRIX_BYTES = 86 * MIB
"""Of BF16 a matrix of 4096 x 11008, as a 7B model has; two of them take turns, so that no cache holds one."""

FEWEST_ROWS = 512
PAST_TOKENS, CHUNK_TOKENS, CHUNK_PAST_TOKENS, HEAD_DIM = 4096, 512, 1536, 128


def memory_speed(target: Target, limit_s: float, at_least: int = 12) -> Spread:
    """Bytes of the pool read a second, by adding up its 64-bit integers (the fastest reader that torch has)."""
    import torch

    words = target.pool.view(torch.int64)
    found = samples_s(words.sum, limit_s, at_least=at_least, synchronize=target.synchronize)
    return spread([target.pool.nbytes / seconds for seconds in found])


def weight_speed(target: Target, dtype: str, limit_s: float) -> WeightSpeed:
    """The curve of one dtype over the number of tokens.

    A device that is slow at many tokens gets fewer rows of the matrix, and where even ``FEWEST_ROWS`` take too long the
    curve ends; beyond its end the last rate of FLOP/s holds.
    """
    kind = torch_type(dtype)
    point_s = limit_s / len(TOKENS)
    most_rows = min(MATRIX_BYTES, target.pool.nbytes // 2) // (COLUMNS * kind.itemsize)
    rows, rates = most_rows, list[float]()
    for tokens in TOKENS:
        if rates:  # at worst twice the time of half the tokens
            row_s = 2 * COLUMNS * kind.itemsize / rates[-1]
            rows = min(rows, max(FEWEST_ROWS, int(point_s / 4 / row_s)))
            if FEWEST_ROWS * row_s > 4 * limit_s:
                break
        seconds = median_s(_product(target, kind, rows, tokens), point_s, synchronize=target.synchronize)
        rates.append(rows * COLUMNS * kind.itemsize / seconds)
    return WeightSpeed(dtype, TOKENS[: len(rates)], tuple(rates))


def _product(target: Target, dtype: torch.dtype, rows: int, tokens: int) -> Callable[[], object]:
    import torch

    states = target.numbers(dtype, tokens, COLUMNS)
    turn = iter(range(1 << 62))
    return lambda: torch.nn.functional.linear(states, target.matrix(dtype, rows, COLUMNS, next(turn)))


def torch_type(dtype: str) -> torch.dtype:
    """torch's name for a dtype of safetensors."""
    import torch

    kind: torch.dtype = getattr(torch, DTYPES[dtype])
    return kind


@dataclass(frozen=True)
class AttentionSpeed:
    """Attention of one token, whichever of the two takes longer; and of a chunk of a prompt."""

    kv_bytes_per_s: float
    kv_flops_per_s: float
    chunk_flops_per_s: float


def attention_speed(target: Target, dtype: str, limit_s: float) -> AttentionSpeed:
    """Attention as transformers calls it.

    One token over a long past, once with as many KV heads as query heads and once with a quarter: the first asks most
    of the memory, the second of the processor for its bytes.
    """
    pairs = [_token(target, dtype, heads, kv_heads, limit_s * 0.3) for heads, kv_heads in ((32, 32), (32, 8))]
    return AttentionSpeed(
        kv_bytes_per_s=max(nbytes / seconds for nbytes, _, seconds in pairs),
        kv_flops_per_s=max(flops / seconds for _, flops, seconds in pairs),
        chunk_flops_per_s=_chunk(target, dtype, limit_s * 0.4),
    )


def _token(target: Target, dtype: str, heads: int, kv_heads: int, limit_s: float) -> tuple[int, int, float]:
    """(bytes of keys and values, FLOPs, seconds) of a token that attends to ``PAST_TOKENS``."""
    from torch.nn.functional import scaled_dot_product_attention

    kind = torch_type(dtype)
    nbytes = kv_heads * PAST_TOKENS * HEAD_DIM * kind.itemsize
    pool = target.pool[: target.pool.nbytes // nbytes * nbytes].view(kind)
    layers = pool.view(-1, 1, kv_heads, PAST_TOKENS, HEAD_DIM)  # keys and values of many layers, none in a cache
    query = target.numbers(kind, 1, kv_heads, heads // kv_heads, HEAD_DIM)  # a group's heads as so many queries
    turn = iter(range(1 << 62))

    def work() -> None:
        index = 2 * next(turn)
        scaled_dot_product_attention(query, layers[index % len(layers)], layers[(index + 1) % len(layers)])

    seconds = median_s(work, limit_s, synchronize=target.synchronize)
    return 2 * nbytes, 4 * heads * PAST_TOKENS * HEAD_DIM, seconds


def _chunk(target: Target, dtype: str, limit_s: float) -> float:
    """FLOP/s of a chunk of a prompt over what came before it: 4 x heads x tokens x tokens attended to x head size."""
    import torch

    kind, heads, kv_heads = torch_type(dtype), 8, 2
    context = CHUNK_PAST_TOKENS + CHUNK_TOKENS
    query = target.numbers(kind, 1, heads, CHUNK_TOKENS, HEAD_DIM)
    keys, values = (target.numbers(kind, 1, kv_heads, context, HEAD_DIM) for _ in range(2))
    mask = torch.ones(1, 1, CHUNK_TOKENS, context, dtype=torch.bool, device=target.device).tril(CHUNK_PAST_TOKENS)
    seconds = median_s(lambda: attend(query, keys, values, mask), limit_s, synchronize=target.synchronize)
    return 4 * heads * CHUNK_TOKENS * context * HEAD_DIM / seconds


def attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None) -> Any:  # noqa: ANN401
    """One call of the attention that the models are built with, ``(B, H, T, D)`` each, the mask ``(B, 1, T, T')``."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    module = SimpleNamespace(num_key_value_groups=query.shape[1] // keys.shape[1], is_causal=True)
    return sdpa_attention_forward(module, query, keys, values, mask)[0]
