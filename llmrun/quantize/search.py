"""The scale, and the minimum, that lose least when groups of weights are rounded to integers.

Minimised is sum importance * (w - w')^2 over each group, with w' = scale * q + low and q an integer. For given integers
the best scale and low are a least squares fit in closed form; for given scale and low the best integers are the nearest
ones. So several ranges are tried, the best one is kept, and both steps alternate from there. A candidate costs a
handful of passes over the weights, in buffers that are used again: the processor's cache holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import product

import torch
from torch import Tensor

_SHRINK = (0.0, 0.025, 0.05)
"""By how much of its span a range is cut at either end: a finer grid gains 0.5 % at most."""
_STEPS = tuple(range(-3, 5))
_FINE, _COARSE = 0.4, 1.0
"""The integer that the weight of the largest size becomes: so many steps from the least one. With 32 levels and more
the error depends on the scale by chance, so that far ones are worth a trial."""
_SAME = 1e-5  # integers whose variance is less than this part of their square are all alike
_ALTERNATIONS = 1
_TINY = 1e-30  # keeps divisions of groups that are all zero finite


@dataclass(frozen=True)
class Sums:
    """What a fit needs to know of integers q: sums over each group, (n, groups), weighted by importance."""

    q: Tensor
    qq: Tensor
    qx: Tensor


@dataclass(frozen=True)
class Fit:
    """Scale and low of each group, (n, groups), and the weighted squared error with the integers they came from."""

    scale: Tensor
    low: Tensor
    error: Tensor

    def better_of(self, other: Fit) -> Fit:
        """Group by group the one with the smaller error."""
        first = self.error <= other.error
        return Fit(
            torch.where(first, self.scale, other.scale),
            torch.where(first, self.low, other.low),
            torch.where(first, self.error, other.error),
        )


class Groups:
    """Weights in groups, float32 (size, n, groups): `n` blocks of `groups` groups of `size` weights.

    Args:
        x: the weights, contiguous.
        importance: of each weight, the same shape; ``None``: all alike.
        levels: the least and the greatest integer.
    """

    def __init__(self, x: Tensor, importance: Tensor | None, levels: tuple[int, int]) -> None:
        self.x = x
        self.levels = levels
        self._importance = importance
        weighted = x if importance is None else importance * x
        self.total = torch.full_like(x[0], len(x)) if importance is None else importance.sum(0)
        self.sum_x = weighted.sum(0)
        self.sum_xx = (weighted * x).sum(0)
        self._q = torch.empty_like(x)
        self._products = torch.empty_like(x)
        self._weighted_q = self._q if importance is None else torch.empty_like(x)

    def rounded(self, scale: Tensor, low: Tensor) -> Tensor:
        """The nearest integers, floats of the shape of ``x``; good until the next call. All 0 where the scale is 0."""
        inverse = torch.where(scale != 0, 1 / scale, 0.0)
        torch.addcmul(-low * inverse, self.x, inverse, out=self._q)
        return self._q.round_().clamp_(*self.levels)

    def sums(self, q: Tensor) -> Sums:
        """The sums of these integers."""
        if self._importance is not None:
            torch.mul(q, self._importance, out=self._weighted_q)
        weighted = self._weighted_q if self._importance is not None else q
        qq = torch.mul(weighted, q, out=self._products).sum(0)
        qx = torch.mul(weighted, self.x, out=self._products).sum(0)
        return Sums(weighted.sum(0), qq, qx)

    def error(self, sums: Sums, scale: Tensor, low: Tensor) -> Tensor:
        """The weighted squared error of w' = scale * q + low."""
        of_x = self.sum_xx - 2 * scale * sums.qx - 2 * low * self.sum_x
        return of_x + scale * (scale * sums.qq + 2 * low * sums.q) + low * low * self.total


def best_scale(groups: Groups) -> Fit:
    """The scale of each group, without a low; negative where that lets the weight of the largest size be the least."""
    least = groups.levels[0]
    step = _COARSE if least <= -32 else _FINE
    peak = groups.x.gather(0, groups.x.abs().argmax(0, keepdim=True))[0]
    zero = torch.zeros_like(peak)

    def fit(scale: Tensor, low: Tensor) -> Fit:
        sums = groups.sums(groups.rounded(scale, low))
        scale = sums.qx / sums.qq.clamp(min=_TINY)
        return Fit(scale, zero, groups.sum_xx - scale * sums.qx)

    return _alternated(((peak / (least + steps * step), zero) for steps in _STEPS), fit)


def best_scale_and_low(groups: Groups, *, low_above_zero: bool) -> Fit:
    """Scale and low of each group; unless ``low_above_zero`` the low is 0 at most, as where it is kept unsigned."""
    least, greatest = groups.x.amin(0), groups.x.amax(0)
    if not low_above_zero:
        least = least.clamp(max=0)
    span = greatest - least
    top = groups.levels[1]
    starts = ((span * (1 - below - above) / top, least + below * span) for below, above in product(_SHRINK, _SHRINK))

    def fit(scale: Tensor, low: Tensor) -> Fit:
        return fitted(groups, groups.sums(groups.rounded(scale, low)), low_above_zero=low_above_zero)

    return _alternated(starts, fit)


def _alternated(starts: Iterable[tuple[Tensor, Tensor]], fit: Callable[[Tensor, Tensor], Fit]) -> Fit:
    best = reduce(Fit.better_of, (fit(scale, low) for scale, low in starts))
    for _ in range(_ALTERNATIONS):
        best = best.better_of(fit(best.scale, best.low))
    return best


def fitted(groups: Groups, sums: Sums, *, low_above_zero: bool) -> Fit:
    """Least squares of w = scale * q + low for given integers; where these are all alike, the low alone."""
    determinant = groups.total * sums.qq - sums.q * sums.q
    alike = determinant <= _SAME * groups.total * sums.qq
    scale = torch.where(alike, 0.0, (groups.total * sums.qx - groups.sum_x * sums.q) / determinant)
    low = (groups.sum_x - scale * sums.q) / groups.total.clamp(min=_TINY)
    if not low_above_zero:
        scale = torch.where(low > 0, sums.qx / sums.qq.clamp(min=_TINY), scale)
        low = low.clamp(max=0)
    return Fit(scale, low, groups.sum_xx - scale * sums.qx - low * groups.sum_x)
