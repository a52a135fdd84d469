"""Weights rounded to a format, so that the weighted squared error is small: what ``llmrun quantize`` writes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from llmrun.formats import WeightFormat, weight_format
from llmrun.kernels.multiply import kernels, plain
from llmrun.kernels.packing import half_bytes, nibble_bytes, sequential_bytes, six_bit_bytes, spread_bytes
from llmrun.kernels.reference import PLAIN_DTYPES
from llmrun.quantize.search import Groups, best_scale, best_scale_and_low
from llmrun.quantize.super_blocks import as_half, with_minima, without_minima

_CHUNK_WEIGHTS = 1 << 17  # with some buffers of its size it stays in a core's cache
_MOST_WEIGHTS = 1 << 20  # at once, of many
_LEAST_IMPORTANCE = 1e-4  # of the mean: a column that the calibration text never used still has to be something


def quantise(fmt: WeightFormat, weights: Tensor, importance: Tensor | None = None) -> Tensor:
    """The rows of ``weights``, finite (rows, columns) of a plain dtype, in a format: uint8 (rows, row_bytes).

    Minimised is the sum of importance[column] * (w - w')^2, block by block; without ``importance`` (columns,) all
    columns count alike. The kernels do that where they were built, else ``quantise_by_torch``.

    Raises:
        ValueError: ``columns`` is no multiple of the format's block.
    """
    columns = weights.shape[1]
    fmt.row_bytes(columns)  # refuses what is not made of its blocks
    if fmt.is_plain:
        return weights.to(PLAIN_DTYPES[fmt.name]).contiguous().view(torch.uint8)
    own = kernels(torch.get_num_threads())
    if own is None:
        return quantise_by_torch(fmt, weights, importance)
    name = next(name for name, dtype in PLAIN_DTYPES.items() if dtype == weights.dtype)
    counts = _relative(importance)
    return own.rounded(weights.contiguous().view(torch.uint8), weight_format(name), columns, fmt, importance=counts)


def quantise_by_torch(fmt: WeightFormat, weights: Tensor, importance: Tensor | None = None) -> Tensor:
    """The same by torch's operators, to a format of integers; the kernels take a twentieth of the time.

    Rows are worked on in chunks, one on each of torch's threads; beside the result that takes some megabytes a thread.
    """
    rows, columns = weights.shape
    weighting = _relative(importance)
    result = torch.empty(rows, fmt.row_bytes(columns), dtype=torch.uint8)
    step, inference = max(1, _CHUNK_WEIGHTS // columns), torch.is_inference_mode_enabled()

    def work(start: int) -> None:
        with torch.inference_mode(inference):  # as the thread that made the result
            chunk = weights[start : start + step].float()
            result[start : start + step] = _ENCODERS[fmt.name](chunk, weighting).reshape(len(chunk), -1)

    _on_all_threads(work, range(0, rows, step))
    return result


def quantise_bytes(
    fmt: WeightFormat,
    source: Tensor,
    plain_fmt: WeightFormat,
    columns: int,
    target: Tensor,
    importance: Tensor | None = None,
) -> None:
    """The same of weights that lie as bytes at any address, uint8 (rows, row_bytes), into memory that is there."""
    own = kernels(torch.get_num_threads())
    if own:
        own.rounded(source, plain_fmt, columns, fmt, target, _relative(importance))
        return
    step = max(1, _MOST_WEIGHTS // columns)
    for begin in range(0, len(source), step):
        some = plain(source[begin : begin + step], PLAIN_DTYPES[plain_fmt.name])
        target[begin : begin + step] = quantise_by_torch(fmt, some, importance)


def _relative(importance: Tensor | None) -> Tensor | None:
    """Importance around 1; that of nothing but zeros says nothing."""
    if importance is None or not importance.any():
        return None
    return importance / importance.mean() + _LEAST_IMPORTANCE


def _on_all_threads(work: Callable[[int], None], items: range) -> None:
    """Each item on one thread, and within it torch on that thread alone: small operations gain nothing from several."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, "quantise", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, items):
                pass
    finally:
        torch.set_num_threads(threads)  # threads that begin later take over the last number that was set


def _groups(chunk: Tensor, importance: Tensor | None, shape: tuple[int, int], levels: tuple[int, int]) -> Groups:
    """The chunk in blocks of ``shape`` (groups, size), the weights of a group along the first dimension."""

    def arranged(values: Tensor) -> Tensor:
        return values.reshape(-1, *shape).permute(2, 0, 1).contiguous()

    weighting = None if importance is None else arranged(importance.expand_as(chunk))
    return Groups(arranged(chunk), weighting, levels)


def _flat(q: Tensor, middle: int = 0) -> Tensor:
    """Integers (size, n, groups) as unsigned bytes (n, block_weights) in the order of the weights."""
    return (q + middle).to(torch.uint8).permute(1, 2, 0).flatten(1)


def _scaled(chunk: Tensor, importance: Tensor | None, *, bits: int) -> Tensor:
    """Q4_0, Q5_0: w = scale * (q - middle)."""
    middle = 2 ** (bits - 1)
    groups = _groups(chunk, importance, (1, 32), (-middle, middle - 1))
    scale = as_half(best_scale(groups).scale)
    q = _flat(groups.rounded(scale, torch.zeros_like(scale)), middle)
    return torch.cat([half_bytes(scale), *_small(q, bits)], dim=1)


def _q8_0(chunk: Tensor, importance: Tensor | None) -> Tensor:
    groups = _groups(chunk, importance, (1, 32), (-127, 127))
    scale = as_half(best_scale(groups).scale)
    q = groups.rounded(scale, torch.zeros_like(scale))
    return torch.cat([half_bytes(scale), q.to(torch.int8).view(torch.uint8).permute(1, 2, 0).flatten(1)], dim=1)


def _with_low(chunk: Tensor, importance: Tensor | None, *, bits: int) -> Tensor:
    """Q4_1, Q5_1: w = scale * q + low."""
    groups = _groups(chunk, importance, (1, 32), (0, 2**bits - 1))
    fit = best_scale_and_low(groups, low_above_zero=True)
    scale, low = as_half(fit.scale), as_half(fit.low)
    return torch.cat([half_bytes(scale), half_bytes(low), *_small(_flat(groups.rounded(scale, low)), bits)], dim=1)


def _small(q: Tensor, bits: int) -> list[Tensor]:
    high = [sequential_bytes(q >> 4)] if bits == 5 else []
    return [*high, nibble_bytes(q, 16)]


def _k_with_minima(chunk: Tensor, importance: Tensor | None, *, bits: int) -> Tensor:
    """Q4_K, Q5_K."""
    done = with_minima(_groups(chunk, importance, (8, 32), (0, 2**bits - 1)))
    q = _flat(done.q)
    pairs = six_bit_bytes(done.scales.to(torch.uint8), done.minima.to(torch.uint8))
    high = [spread_bytes(q >> 4, 32, 1)] if bits == 5 else []
    return torch.cat([half_bytes(done.scale), half_bytes(done.minimum), pairs, *high, nibble_bytes(q, 32)], dim=1)


def _q6_k(chunk: Tensor, importance: Tensor | None) -> Tensor:
    done = without_minima(_groups(chunk, importance, (16, 16), (-32, 31)))
    q = _flat(done.q, 32)
    scales = done.scales.to(torch.int8).view(torch.uint8)
    return torch.cat([nibble_bytes(q, 64), spread_bytes(q >> 4, 32, 2), scales, half_bytes(done.scale)], dim=1)


_ENCODERS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "Q8_0": _q8_0,
    "Q4_0": partial(_scaled, bits=4),
    "Q4_1": partial(_with_low, bits=4),
    "Q5_0": partial(_scaled, bits=5),
    "Q5_1": partial(_with_low, bits=5),
    "Q4_K": partial(_k_with_minima, bits=4),
    "Q5_K": partial(_k_with_minima, bits=5),
    "Q6_K": _q6_k,
}
