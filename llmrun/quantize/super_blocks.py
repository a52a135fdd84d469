"""The K formats: groups whose scales and minima are small integers, times one fp16 number of the whole block.

From the best scale of each group on, three steps take turns, each of which can only lower the error: the integers of
the weights for given scales; the small integers of each group for given weights; the two fp16 numbers for all of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llmrun.quantize.search import Groups, Sums, best_scale, best_scale_and_low

HALF_MAX = 65504.0
_TOP = 63  # scales and minima of six bits
_TURNS = 2
_NEIGHBOURS = (-1, 0, 1)
_TINY = 1e-30


@dataclass(frozen=True)
class SuperBlocks:
    """Floats that hold fp16 values (n, 1), integers of the groups (n, groups) and of the weights (size, n, groups)."""

    scale: Tensor
    minimum: Tensor
    scales: Tensor
    minima: Tensor
    q: Tensor


def with_minima(groups: Groups) -> SuperBlocks:
    """Q4_K and Q5_K: w = scale * scales * q - minimum * minima, all of them unsigned."""
    fit = best_scale_and_low(groups, low_above_zero=False)
    scale, scales = _shared(fit.scale.clamp(min=0))
    minimum, minima = _shared(-fit.low)
    for _ in range(_TURNS):
        sums = groups.sums(groups.rounded(scale * scales, -minimum * minima))
        scales, minima = _best_integers(groups, sums, scale, minimum, scales)
        scale, minimum = _best_factors(groups, sums, scale, minimum, scales, minima)
    return SuperBlocks(scale, minimum, scales, minima, groups.rounded(scale * scales, -minimum * minima))


def without_minima(groups: Groups) -> SuperBlocks:
    """Q6_K: w = scale * scales * q with signed q, and scales from -128 to 127."""
    best = best_scale(groups).scale
    scale = as_half(best.gather(1, best.abs().argmax(1, keepdim=True)) / -128)
    scales = _nearest(best, scale, -128, 127)
    zero = torch.zeros_like(best)
    for _ in range(_TURNS):
        sums = groups.sums(groups.rounded(scale * scales, zero))
        scales = _nearest(sums.qx / sums.qq.clamp(min=_TINY), scale, -128, 127)
        fitted = (scales * sums.qx).sum(1, keepdim=True) / (scales * scales * sums.qq).sum(1, keepdim=True)
        scale = torch.where(fitted.isfinite(), as_half(fitted), scale)
    return SuperBlocks(scale, zero[:, :1], scales, zero, groups.rounded(scale * scales, zero))


def as_half(values: Tensor) -> Tensor:
    """Rounded to what fp16 can hold, as floats."""
    return values.clamp(-HALF_MAX, HALF_MAX).half().float()


def _shared(values: Tensor) -> tuple[Tensor, Tensor]:
    """One factor (n, 1) for values (n, groups) >= 0, and the six-bit integers that give them back best."""
    factor = as_half(values.amax(1, keepdim=True) / _TOP)
    return factor, _nearest(values, factor, 0, _TOP)


def _nearest(values: Tensor, factor: Tensor, least: int, greatest: int) -> Tensor:
    return torch.where(factor != 0, values / factor, 0.0).round().clamp(least, greatest)


def _best_integers(groups: Groups, sums: Sums, scale: Tensor, minimum: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """For given integers of the weights: each group's scale among the neighbours, with the best minimum for it."""
    best = best_error = None
    for step in _NEIGHBOURS:
        tried = (scales + step).clamp(0, _TOP)
        minima = _nearest((scale * tried * sums.q - groups.sum_x) / groups.total.clamp(min=_TINY), minimum, 0, _TOP)
        error = groups.error(sums, scale * tried, -minimum * minima)
        if best is None or best_error is None:
            best, best_error = (tried, minima), error
        else:
            better = error < best_error
            best = (torch.where(better, tried, best[0]), torch.where(better, minima, best[1]))
            best_error = torch.where(better, error, best_error)
    assert best is not None
    return best


def _best_factors(
    groups: Groups, sums: Sums, scale: Tensor, minimum: Tensor, scales: Tensor, minima: Tensor
) -> tuple[Tensor, Tensor]:
    """Least squares of both factors over the groups of a block; what cannot be solved for stays as it is."""
    a = (scales * scales * sums.qq).sum(1, keepdim=True)
    b = (scales * minima * sums.q).sum(1, keepdim=True)
    c = (minima * minima * groups.total).sum(1, keepdim=True)
    of_scale = (scales * sums.qx).sum(1, keepdim=True)
    of_minimum = (minima * groups.sum_x).sum(1, keepdim=True)
    determinant = a * c - b * b
    good = determinant > 1e-5 * a * c
    new_scale = torch.where(good, (of_scale * c - of_minimum * b) / determinant, scale)
    new_minimum = torch.where(good, (of_scale * b - of_minimum * a) / determinant, minimum)
    good &= (new_scale > 0) & (new_minimum > 0)
    return torch.where(good, as_half(new_scale), scale), torch.where(good, as_half(new_minimum), minimum)
