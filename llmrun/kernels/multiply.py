"""Products with weights as they lie: by the kernels where they know the format, else by torch."""

from __future__ import annotations

import sys
from functools import cache

import torch
from torch.nn.functional import linear

from llmrun.formats import WeightFormat
from llmrun.kernels.library import chosen_library
from llmrun.kernels.linear import Kernels, Product
from llmrun.kernels.reference import PLAIN_DTYPES, dequantise
from llmrun.kernels.scales import Scales

FEW_TOKENS = 32
"""Up to here the kernels read plain weights once for each 8 of them; above, oneDNN's product of tiles is faster.

It rounds states to bf16, so that a token alone and many together differ: by default a draft has no more
(``settings.DEFAULT_DRAFT_TOKENS`` and the token before it).
"""

BF16_TILE_BYTES = 32 << 20
"""Of weights that are multiplied by at a time in bf16: oneDNN may copy, and keep, as many as it is given."""

TILE_BYTES = 8 << 20
"""Of weights that are made floats at a time, where nothing multiplies by them as they lie."""


@cache
def kernels(threads: int) -> Kernels | None:
    """The kernels with a pool of so many threads, shared by the process; ``None`` where they were not built."""
    library = chosen_library()
    return Kernels(library, threads) if library else None


def multiply(
    states: torch.Tensor,
    packed: torch.Tensor,
    fmt: WeightFormat,
    columns: int,
    *,
    scales: Scales | None = None,
    fine: bool = True,
) -> torch.Tensor:
    """``states @ weights.T`` by a weight that is multiplied by once, as ``Multiplication`` has it."""
    return Multiplication(packed, fmt, columns, scales=scales, fine=fine)(states)


class Multiplication:
    """``states @ weights.T``: ``(..., columns)`` by ``(rows, row_bytes)`` bytes to ``(..., rows)``, in their dtype.

    It looks up once what takes the states of one token, of which there are hundreds of products.

    Memory: the result; more than a few tokens of plain weights a tile of them as floats and its product as well.

    Args:
        scales: of 8-bit floats, those that lie beside them.
        fine: on the CPU the states are rounded to 16 bits where the weights are integers, else to 8. More than a few
            tokens meet bf16 weights in bf16 either way, and floats of 8 bits unless it is fine.
    """

    def __init__(
        self,
        packed: torch.Tensor,
        fmt: WeightFormat,
        columns: int,
        *,
        scales: Scales | None = None,
        fine: bool = True,
    ) -> None:
        self._weight = packed, fmt, columns, scales
        self._fine = fine
        self._most = FEW_TOKENS * columns if fmt.is_plain else sys.maxsize  # numbers that the kernels take at once
        self._threads = 0
        self._own: Product | None = None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:  # noqa: D102 - the class says it
        if states.is_cpu and states.dtype is torch.float32 and states.numel() <= self._most:
            own = self.product()
            if own:
                return own(states.contiguous())
        packed, _, columns, _ = self._weight
        return self._by_torch(states.reshape(-1, columns)).view(*states.shape[:-1], len(packed))

    def product(self) -> Product | None:
        """That of the kernels, with as many threads as torch has; ``None`` where they do not know the format."""
        if self._threads != torch.get_num_threads():
            self._prepare()
        return self._own

    def _prepare(self) -> None:
        packed, fmt, columns, scales = self._weight
        self._threads = torch.get_num_threads()
        own = kernels(self._threads)
        known = own and own.supports(fmt.name)
        self._own = own.product(packed, fmt, columns, scales=scales, fine=self._fine) if own and known else None

    def _by_torch(self, states: torch.Tensor) -> torch.Tensor:
        packed, fmt, columns, scales = self._weight
        if states.is_cpu and states.dtype == torch.float32:
            if fmt.name == "BF16":
                return _in_bf16(states, packed)
            if fmt.name == "F8_E4M3" and not self._fine:
                return by_tiles(states.bfloat16(), packed, fmt, columns, scales).float()
        return by_tiles(states, packed, fmt, columns, scales)


def numbers(packed: torch.Tensor, fmt: WeightFormat, columns: int, scales: Scales | None = None) -> torch.Tensor:
    """The weights of ``(rows, row_bytes)`` bytes at any address, fp32 ``(rows, columns)``."""
    return _as_they_are(packed, fmt, columns, scales).float()


def plain(packed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bytes as the numbers that they are; a copy where they are not aligned."""
    aligned = packed if packed.data_ptr() % dtype.itemsize == 0 else packed.clone()
    return aligned.view(dtype)


def _in_bf16(states: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    product = states.new_empty(len(states), len(packed))
    rounded, step = states.bfloat16(), max(1, BF16_TILE_BYTES // packed.shape[1])
    for begin in range(0, len(packed), step):
        product[:, begin : begin + step] = linear(rounded, plain(packed[begin : begin + step], torch.bfloat16))
    return product


def by_tiles(
    states: torch.Tensor, packed: torch.Tensor, fmt: WeightFormat, columns: int, scales: Scales | None = None
) -> torch.Tensor:
    """``multiply``, of weights that are made floats of the dtype of states, some rows at a time."""
    product = states.new_empty(len(states), len(packed))
    step = max(1, TILE_BYTES // (columns * states.element_size()))
    memory = states.new_empty(min(step, len(packed)), columns)
    by_onednn = states.device.type == "cpu" and states.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    left = states.to_mkldnn() if by_onednn else states  # on some processors twice as fast as torch's own choice, MKL
    for begin in range(0, len(packed), step):
        rows = packed[begin : begin + step]
        of_rows = scales.between(begin, begin + len(rows)) if scales else None
        tile = memory[: len(rows)]
        if (own := _converter(rows, fmt)) and tile.dtype == torch.float32:
            own.floats(rows, fmt, columns, of_rows, out=tile)
        else:
            tile.copy_(_as_they_are(rows, fmt, columns, of_rows))
        there = linear(left, tile)
        product[:, begin : begin + step] = there.to_dense() if by_onednn else there
    return product


def _as_they_are(packed: torch.Tensor, fmt: WeightFormat, columns: int, scales: Scales | None) -> torch.Tensor:
    """The weights in the dtype that they have, else in fp32."""
    if not fmt.is_plain:
        return dequantise(fmt, packed, columns)
    if fmt.is_computed_in:
        return plain(packed, PLAIN_DTYPES[fmt.name])
    if own := _converter(packed, fmt):
        return own.floats(packed, fmt, columns, scales)
    values = plain(packed, PLAIN_DTYPES[fmt.name]).float()
    return scales.times(values) if scales else values


def _converter(packed: torch.Tensor, fmt: WeightFormat) -> Kernels | None:
    """The kernels, where they make floats of weights faster than torch: of 8-bit ones, many times."""
    if fmt.name != "F8_E4M3" or packed.device.type != "cpu":
        return None
    return kernels(torch.get_num_threads())
