"""Weights as the checkpoint has them, which a transformers model takes for a matrix of floats.

A layer's own code stays as it is: ``torch.nn.functional.linear`` and ``embedding`` come here with such a weight
(torch's ``__torch_function__``, https://docs.pytorch.org/docs/stable/notes/extending.html). Whatever else is done with
one gets its numbers as plain floats: right for every model, and slow for those that do it often.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import embedding, linear
from torch.utils._pytree import tree_map

from llmrun.formats import WeightFormat, weight_format
from llmrun.kernels.linear import Product
from llmrun.kernels.multiply import Multiplication, numbers, plain
from llmrun.kernels.reference import PLAIN_DTYPES
from llmrun.kernels.scales import Scales

Meets = Callable[[torch.Tensor], None]
"""Is told the states ``(..., columns)`` that a matrix is multiplied with."""


def as_weight(
    data: torch.Tensor,
    fmt_name: str,
    shape: Sequence[int],
    dtype: torch.dtype,
    paired_head_dim: int | None = None,
    *,
    scales: Scales | None = None,
    fine: bool = True,
    meets: Meets | None = None,
) -> torch.Tensor:
    """The tensor whose bytes are ``data``, to be computed with in ``dtype``, and ``fine`` as ``multiply`` has it.

    A matrix of another dtype, or whose rows lie in pairs, or with ``meets``, is multiplied as it lies. Else it is
    copied where it cannot be used so: not aligned to its elements, or a vector of another dtype. Those are few and
    small.
    """
    fmt = weight_format(fmt_name)
    if len(shape) == 2 and (paired_head_dim or meets or PLAIN_DTYPES.get(fmt_name) != dtype):
        rows, columns = shape
        packed = data.view(rows, fmt.row_bytes(columns))
        return PackedWeight(packed, fmt, columns, dtype, paired_head_dim, scales=scales, fine=fine, meets=meets)
    values: torch.Tensor = plain(data, PLAIN_DTYPES[fmt_name]).view(*shape).to(dtype)
    return in_halves(values, paired_head_dim) if paired_head_dim else values


def as_scales(data: torch.Tensor, fmt_name: str, shape: Sequence[int], block_rows: int, block_columns: int) -> Scales:
    """The scales whose bytes are ``data``, of a matrix of that shape; a copy where they are not aligned fp32."""
    values: torch.Tensor = plain(data, PLAIN_DTYPES[fmt_name]).float()
    rows, columns = shape
    return Scales(values.view(-(-rows // block_rows), -(-columns // block_columns)), block_rows, block_columns)


def plain_weight(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Ordinary numbers as the tensor of a checkpoint that has them, to be computed with in ``dtype``."""
    name = next(name for name, kind in PLAIN_DTYPES.items() if kind == matrix.dtype)
    return as_weight(matrix.detach().contiguous().flatten().view(torch.uint8), name, matrix.shape, dtype)


def product_of(weight: torch.Tensor) -> Product | None:
    """By a matrix as the kernels multiply; its rows that lie in pairs stay so. ``None``: they do not.

    Nor do they by one that is told what it meets, which is the model's own code's to say.
    """
    if isinstance(weight, PackedWeight):
        return None if weight.meets else weight.times.product()
    if weight.dtype is not torch.float32 or not weight.is_cpu or not weight.is_contiguous():
        return None
    return Multiplication(weight.detach().view(torch.uint8), weight_format("F32"), weight.shape[1]).product()


def in_halves(values: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Along the last dimension, pairs (x0 y0 x1 y1) of every head as halves (x0 x1 y0 y1)."""
    *others, columns = values.shape
    pairs = values.view(*others, columns // head_dim, head_dim // 2, 2)
    return pairs.transpose(-1, -2).reshape(values.shape)


class PackedWeight(torch.Tensor):
    """A matrix ``(rows, columns)`` in rows of packed bytes.

    Args:
        packed: ``(rows, row_bytes)`` of uint8, on any device, at any address.
        columns: weights of a row.
        dtype: what it seems to be, and what is multiplied with it.
        paired_head_dim: the rows of each head of this size lie in pairs (x0 y0 x1 y1), as llama.cpp's converter leaves
            them for its own rotary embedding; the product has them as halves, as transformers wants them.
        scales: of 8-bit floats, those that lie beside them.
        fine: how its products are computed, as ``multiply`` says.
        meets: is told what the model's code multiplies it with.
    """

    packed: torch.Tensor
    fmt: WeightFormat
    paired_head_dim: int | None
    scales: Scales | None
    fine: bool
    meets: Meets | None
    times: Multiplication

    @staticmethod
    def __new__(  # noqa: D102 - the class says it
        cls: type[PackedWeight],
        packed: torch.Tensor,
        fmt: WeightFormat,
        columns: int,
        dtype: torch.dtype,
        paired_head_dim: int | None = None,
        *,
        scales: Scales | None = None,
        fine: bool = True,
        meets: Meets | None = None,
    ) -> PackedWeight:
        weight: PackedWeight = torch.Tensor._make_wrapper_subclass(
            cls, (len(packed), columns), dtype=dtype, device=packed.device
        )
        weight.packed, weight.fmt, weight.paired_head_dim = packed, fmt, paired_head_dim
        weight.scales, weight.fine, weight.meets = scales, fine, meets
        weight.times = Multiplication(packed, fmt, columns, scales=scales, fine=fine)
        return weight

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Products and rows are taken from the bytes; the rest goes its usual way."""
        if func is linear and isinstance(args[1], cls):
            return args[1]._linear(args[0], *args[2:], **(kwargs or {}))
        if func is embedding and isinstance(args[1], cls):
            return args[1].numbers(args[0])
        with torch._C.DisableTorchFunctionSubclass():  # what comes of it is a plain tensor
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Any other operation, on plain numbers."""
        if func is torch.ops.aten.detach.default:
            return args[0]._alias()

        def unpacked(value: Any) -> Any:  # noqa: ANN401
            return value.numbers() if isinstance(value, cls) else value

        return func(*tree_map(unpacked, args), **tree_map(unpacked, dict(kwargs or {})))

    def numbers(self, ids: torch.Tensor | None = None) -> torch.Tensor:
        """The rows of ``ids``, ``(*ids.shape, columns)``, or all of them, as floats.

        Memory: the result, and its bytes once more.
        """
        columns = self.shape[1]
        if ids is None:
            return self._in_halves(numbers(self.packed, self.fmt, columns, self.scales).T).T.to(self.dtype)
        ids_of_rows = ids.reshape(-1)
        scales = self.scales.of_rows(ids_of_rows) if self.scales else None
        rows = numbers(self.packed.index_select(0, ids_of_rows), self.fmt, columns, scales)
        return rows.view(*ids.shape, columns).to(self.dtype)

    def _linear(self, states: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if self.meets:
            self.meets(states)
        product = self._in_halves(self.times(states))
        return product if bias is None else product + bias

    def _in_halves(self, product: torch.Tensor) -> torch.Tensor:
        return in_halves(product, self.paired_head_dim) if self.paired_head_dim else product

    def _alias(self) -> PackedWeight:
        kind = self.fmt, self.shape[1], self.dtype, self.paired_head_dim
        return PackedWeight(self.packed, *kind, scales=self.scales, fine=self.fine, meets=self.meets)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PackedWeight({self.fmt.name}, {tuple(self.shape)}, {self.dtype})"
