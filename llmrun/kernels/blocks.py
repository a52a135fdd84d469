"""Several products and what stands between them in one call of the kernels, for a few tokens."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llmrun.kernels.library import AttentionBlock, GatedMlpJob
from llmrun.kernels.linear import CACHE_FORMATS, Kernels, Product

Vectors = tuple[torch.Tensor | None, ...]


@dataclass(frozen=True)
class Room:
    """Where keys and values of new tokens go: after ``past`` others, which they see all; ``(1, H_kv, S, D)`` each."""

    keys: torch.Tensor
    values: torch.Tensor
    past: int


@dataclass(frozen=True)
class Heads:
    """The products of attention, and what is done with what three of them give.

    Args:
        query, key, value, out: the products; rows of ``query`` are heads of ``head_dim``, which share those of ``key``.
        scale: of the products of query and key.
        biases: of queries, keys and values, fp32.
        norms: of each head of queries and of keys, fp32: ``Kernels.rms_norm`` with ``epsilon``.
        paired: of queries and keys, whether the rows of a head lie in pairs (x0 y0 x1 y1), to be halves.
    """

    query: Product
    key: Product
    value: Product
    out: Product
    head_dim: int
    scale: float
    biases: Vectors = (None, None, None)
    norms: Vectors = (None, None)
    epsilon: float = 0.0
    paired: tuple[bool, bool] = (False, False)


def gated_mlp(kernels: Kernels, x: torch.Tensor, gate: Product, up: Product, down: Product) -> torch.Tensor:
    """``down(silu(gate(x)) * up(x))``: ``(..., columns)`` to the same, contiguous fp32.

    Memory: the result; two activations of the inner size, which the threads' pool keeps.

    Raises:
        ValueError: shapes, dtypes or layout do not fit.
        MemoryError: no memory for the workspaces.
    """
    _check(x, gate)
    y = x.new_empty((*x.shape[:-1], down.rows))
    job = GatedMlpJob(gate.address, up.address, down.address, gate.fine)
    kernels.call("llmrun_mlp", ctypes.byref(job), x.data_ptr(), x.numel() // gate.columns, y.data_ptr())
    return y


def attend(
    kernels: Kernels, x: torch.Tensor, heads: Heads, turns: tuple[torch.Tensor, torch.Tensor], room: Room
) -> torch.Tensor:
    """Causal attention of ``(1, T, columns)``, contiguous fp32, to the same; its keys and values are then in ``room``.

    ``turns`` are cosine and sine of rotary embeddings by halves (Su et al. 2021, arXiv:2104.09864), ``(1, T, D)``.

    Memory: the result; four activations, and half a megabyte for each thread, which their pool keeps.

    Raises:
        ValueError: shapes, dtypes or layout do not fit, or there is no room.
        MemoryError: no memory for the workspaces.
    """
    _check(x, heads.query)
    tokens = x.numel() // heads.query.columns
    kv_heads = _check_room(room, heads, tokens)
    vectors = [_vector(each, size) for each, size in zip((*heads.biases, *heads.norms), _sizes(heads), strict=True)]
    cos, sin = (_turn(each, tokens, heads.head_dim) for each in turns)
    keys, values = room.keys, room.values
    y = x.new_empty((*x.shape[:-1], heads.out.rows))
    job = AttentionBlock(
        *(product.address for product in (heads.query, heads.key, heads.value, heads.out)),
        *vectors,
        heads.epsilon,
        heads.query.fine,
        *heads.paired,
        cos,
        sin,
        CACHE_FORMATS[keys.dtype],
        kv_heads,
        heads.head_dim,
        room.past,
        keys.data_ptr(),
        values.data_ptr(),
        *keys.stride()[1:3],
        *values.stride()[1:3],
        heads.scale,
    )
    kernels.call("llmrun_attend", ctypes.byref(job), x.data_ptr(), tokens, y.data_ptr())
    return y


def _check(x: torch.Tensor, first: Product) -> None:
    if x.dtype is not torch.float32 or x.shape[-1] != first.columns or not x.is_contiguous() or not x.is_cpu:
        raise ValueError(f"activations must be contiguous fp32 (..., {first.columns}), not {x.dtype} {tuple(x.shape)}")


def _check_room(room: Room, heads: Heads, tokens: int) -> int:
    """How many heads of keys there are."""
    _, kv_heads, capacity, dim = room.keys.shape
    for each in (room.keys, room.values):
        fits = each.shape == (1, kv_heads, capacity, heads.head_dim) and each.dtype == room.keys.dtype
        if not fits or each.dtype not in (torch.float16, torch.float32) or each.stride(3) != 1 or not each.is_cpu:
            raise ValueError(f"no keys or values of {dim} go into {each.dtype} {tuple(each.shape)}")
    if not 0 <= room.past <= capacity - tokens:
        raise ValueError(f"no room for {tokens} tokens after {room.past} of {capacity}")
    return kv_heads


def _sizes(heads: Heads) -> Sequence[int]:
    return heads.query.rows, heads.key.rows, heads.value.rows, heads.head_dim, heads.head_dim


def _vector(values: torch.Tensor | None, size: int) -> int:
    if values is None:
        return 0
    if values.dtype is not torch.float32 or values.shape != (size,) or not values.is_contiguous() or not values.is_cpu:
        raise ValueError(f"a bias or norm must be contiguous fp32 ({size},), not {values.dtype} {tuple(values.shape)}")
    return values.data_ptr()


def _turn(values: torch.Tensor, tokens: int, head_dim: int) -> int:
    if values.dtype is not torch.float32 or values.shape != (1, tokens, head_dim) or not values.is_contiguous():
        raise ValueError(f"turns must be contiguous fp32 (1, {tokens}, {head_dim}), not {tuple(values.shape)}")
    return values.data_ptr()
