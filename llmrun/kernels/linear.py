"""Products with packed weights, and attention to a cache, on the CPU: the C kernels for torch's tensors."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import torch

from llmrun.formats import FORMATS, WeightFormat
from llmrun.kernels.library import AttentionJob, Library, Matrix
from llmrun.kernels.scales import Scales

NO_MEMORY = -1
CACHE_FORMATS = {
    torch.float32: FORMATS["F32"].number,
    torch.float16: FORMATS["F16"].number,
    torch.bfloat16: FORMATS["BF16"].number,
}


class Kernels:
    """The kernels with a pool of threads of their own.

    Calls from several Python threads wait for each other; the interpreter's lock is released while one runs.

    Args:
        library: what `find_library` found.
        threads: that compute, with the calling one.

    Raises:
        ValueError: there is no library, or less than one thread.
        MemoryError: no memory for the threads.
    """

    def __init__(self, library: Library | None, threads: int) -> None:
        if library is None:
            raise ValueError("the kernels were not built: install llmrun where there is a C compiler")
        if threads < 1:
            raise ValueError(f"{threads} threads cannot compute")
        self._functions = library.functions
        self._lock = threading.Lock()
        self._pool: int | None = self._functions.llmrun_pool_new(threads)
        if not self._pool:
            raise MemoryError(f"no memory for {threads} threads")
        self.threads: int = self._functions.llmrun_pool_threads(self._pool)
        self.variant = library.variant

    def supports(self, format_name: str) -> bool:
        """Whether `linear` multiplies by weights of this format."""
        fmt = FORMATS.get(format_name)
        return fmt is not None and bool(self._functions.llmrun_supports(fmt.number))

    def linear(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        fmt: WeightFormat,
        columns: int,
        *,
        scales: Scales | None = None,
        fine: bool = False,
    ) -> torch.Tensor:
        """The `product` of `x` by a weight that is multiplied by once.

        Raises:
            ValueError: shapes, dtypes or layout are others than `product` says.
            MemoryError: no memory for the threads' workspaces.
        """
        return self.product(weight, fmt, columns, scales=scales, fine=fine)(x)

    def product(
        self,
        weight: torch.Tensor,
        fmt: WeightFormat,
        columns: int,
        *,
        scales: Scales | None = None,
        fine: bool = False,
    ) -> Product:
        """`x @ W.T` as a function of `x`: `(..., columns)` to `(..., rows)`, contiguous fp32.

        `weight` is `(rows, row_bytes)` of uint8, of which rows may lie apart, but not within. Formats of integers round
        `x` to int8 in groups of 32, or with `fine` to 16 bits in twice the operations. Of the formats F8_E4M3 alone may
        have `scales`.

        Raises:
            ValueError: shapes, dtypes or layout are others than these.
        """
        return Product(self, _matrix(weight, fmt, columns, scales), (weight, scales), fine=fine)

    def floats(
        self,
        weight: torch.Tensor,
        fmt: WeightFormat,
        columns: int,
        scales: Scales | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The weights of a plain format, fp32 `(rows, columns)`, each with its scale; arguments as of `linear`.

        `out` takes them, where it is given.

        Raises:
            ValueError: shapes, dtypes or layout are others than these.
        """
        matrix = _matrix(weight, fmt, columns, scales)
        out = torch.empty(len(weight), columns) if out is None else out
        if out.shape != (len(weight), columns) or out.dtype != torch.float32 or not out.is_contiguous():
            raise ValueError(f"the weights must go to contiguous fp32 {(len(weight), columns)}, not {tuple(out.shape)}")
        if out.numel():
            with self._lock:
                self._check(self._functions.llmrun_floats(self._pool, ctypes.byref(matrix), out.data_ptr()))
        return out

    def rounded(
        self,
        weight: torch.Tensor,
        fmt: WeightFormat,
        columns: int,
        target: WeightFormat,
        out: torch.Tensor | None = None,
        importance: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Weights of a plain format in blocks of integers that lose little: uint8 `(rows, target.row_bytes(columns))`.

        The same bytes whatever the processor and the number of threads; in `out`, where it is given. What a column
        loses counts as much as its `importance`, fp32 `(columns,)` and above 0, says. Other arguments as of `linear`.

        Raises:
            ValueError: shapes, dtypes or layout are others than these.
        """
        shape = len(weight), target.row_bytes(columns)
        out = torch.empty(shape, dtype=torch.uint8) if out is None else out
        if out.dtype != torch.uint8 or out.shape != shape or not out.is_contiguous() or out.device.type != "cpu":
            raise ValueError(f"{target.name} weights go into contiguous uint8 {shape}, not {out.dtype} {out.shape}")
        counts = None if importance is None else importance.contiguous()
        if counts is not None and (counts.dtype != torch.float32 or counts.shape != (columns,) or not counts.is_cpu):
            raise ValueError(f"the importance of {columns} columns is not {counts.dtype} {tuple(counts.shape)}")
        weight = weight.contiguous()
        matrix = _matrix(weight, fmt, columns, None)
        counted = None if counts is None else counts.data_ptr()
        if out.numel():
            with self._lock:
                round_to = self._functions.llmrun_round
                self._check(round_to(self._pool, ctypes.byref(matrix), target.number, counted, out.data_ptr()))
        return out

    def attention(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float,
        *,
        window: int = 0,
        softcap: float = 0.0,
    ) -> torch.Tensor:
        """Causal attention of the newest tokens to a cache which they are in.

        Args:
            query: `(H, T, D)` fp32, of the last `T` of the `S` tokens; heads and tokens in any order in memory.
            keys: `(H_kv, S, D)` F32, F16 or BF16, a view of a larger cache if need be; query head `h` has the keys of
                head `h // (H / H_kv)`.
            values: the same.
            scale: of the products of query and key.
            window: a token sees itself and the `window - 1` before it; 0: all.
            softcap: `softcap * tanh(product / softcap)` before the softmax; 0: none.

        Returns:
            `(H, T, D)` fp32, a view of `(T, H, D)`.

        Raises:
            ValueError: shapes, dtypes or layout are others than these.
            MemoryError: no memory for the threads' workspaces.
        """
        heads, queries, head_dim = query.shape
        kv_heads, tokens, _ = keys.shape
        if keys.shape != values.shape or keys.shape[2] != head_dim or heads % kv_heads or not 0 < queries <= tokens:
            raise ValueError(f"queries {tuple(query.shape)} do not fit keys {tuple(keys.shape)}, {tuple(values.shape)}")
        if query.dtype != torch.float32 or keys.dtype not in CACHE_FORMATS or values.dtype != keys.dtype:
            raise ValueError(f"no attention of {query.dtype} to {keys.dtype} and {values.dtype}")
        if keys.stride(2) != 1 or values.stride(2) != 1:
            raise ValueError("a head's key must be contiguous")
        query = query if query.stride(2) == 1 else query.contiguous()
        out = torch.empty(queries, heads, head_dim).transpose(0, 1)
        job = AttentionJob(
            CACHE_FORMATS[keys.dtype],
            kv_heads,
            heads // kv_heads,
            queries,
            tokens,
            head_dim,
            query.data_ptr(),
            *query.stride()[:2],
            keys.data_ptr(),
            values.data_ptr(),
            *keys.stride()[:2],
            *values.stride()[:2],
            window,
            scale,
            softcap,
            out.data_ptr(),
            *out.stride()[:2],
        )
        with self._lock:
            self._check(self._functions.llmrun_attention(self._pool, ctypes.byref(job)))
        return out

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """`weight * x / sqrt(epsilon + mean of the squares of x)`, over the last dimension, contiguous fp32.

        Raises:
            ValueError: shapes, dtypes or layout are others than these.
        """
        columns = x.shape[-1]
        if not _is_fp32(x) or not _is_fp32(weight) or weight.shape != (columns,):
            raise ValueError(f"no norm of {x.dtype} {tuple(x.shape)} with {weight.dtype} {tuple(weight.shape)}")
        y = torch.empty_like(x)
        if tokens := x.numel() // columns if columns else 0:
            norm, at = self._functions.llmrun_rms_norm, (x.data_ptr(), weight.data_ptr())
            with self._lock:
                self._check(norm(self._pool, *at, tokens, columns, epsilon, y.data_ptr()))
        return y

    def call(self, name: str, *args: object) -> None:
        """Compute by a function of the library, given what it takes after the pool.

        Raises:
            ValueError: it refuses its arguments.
            MemoryError: no memory for the threads' workspaces.
        """
        with self._lock:
            self._check(getattr(self._functions, name)(self._pool, *args))

    def close(self) -> None:
        """Ends the threads and frees their memory; nothing can be computed after that."""
        with self._lock:
            if self._pool:
                self._functions.llmrun_pool_free(self._pool)
            self._pool = None

    @staticmethod
    def _check(status: int) -> None:
        if status == NO_MEMORY:
            raise MemoryError("no memory for the kernels' workspaces")
        if status:
            raise ValueError("the kernels refuse these arguments")


def _is_fp32(x: torch.Tensor) -> bool:
    """Whether it is plain contiguous fp32 in memory."""
    return x.dtype is torch.float32 and x.is_cpu and x.is_contiguous()


def _matrix(weight: torch.Tensor, fmt: WeightFormat, columns: int, scales: Scales | None) -> Matrix:
    if weight.dtype != torch.uint8 or weight.ndim != 2 or weight.shape[1] != fmt.row_bytes(columns):
        raise ValueError(f"{fmt.name} weights must be uint8 (rows, {fmt.row_bytes(columns)}), not {weight.shape}")
    if weight.stride(1) != 1 or weight.device.type != "cpu":
        raise ValueError("the kernels take contiguous rows in memory")
    rows = len(weight)
    row_stride = weight.stride(0) if rows > 1 else weight.shape[1]
    matrix = Matrix(fmt.number, rows, columns, weight.data_ptr(), row_stride)
    if scales:
        if not scales.fit(rows, columns) or scales.values.device.type != "cpu":
            raise ValueError(f"scales {tuple(scales.values.shape)} must be contiguous fp32 in memory, one a block")
        matrix.scales, matrix.block_rows = scales.values.data_ptr(), scales.block_rows
        matrix.block_columns = scales.block_columns
    return matrix


class Product:
    """`Kernels.product`: all that can be checked without `x` was checked once, for a token is hundreds of calls.

    Attributes:
        rows, columns: of the weight.
        fine: as `Kernels.product` has it.
        address: of its `Matrix`, for calls of the library that take several.

    Raises (when called):
        ValueError: `x` has another shape, dtype or layout, or the kernels are closed.
        MemoryError: no memory for the threads' workspaces.
    """

    def __init__(self, kernels: Kernels, matrix: Matrix, memory: object, *, fine: bool) -> None:
        functions = kernels._functions
        self.fine = fine
        self.rows: int = matrix.rows
        self.columns: int = matrix.columns
        self.address = ctypes.addressof(matrix)
        self._kernels = kernels
        self._function: Callable[..., int] = functions.llmrun_linear_fine if fine else functions.llmrun_linear
        self._memory = matrix, memory  # that it points to

    def __call__(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102 - the class says it
        shape, columns, kernels = x.shape, self.columns, self._kernels
        if x.dtype is not torch.float32 or shape[-1] != columns or not x.is_contiguous() or not x.is_cpu:
            raise ValueError(f"activations must be contiguous fp32 (..., {columns}), not {x.dtype} {tuple(shape)}")
        y = x.new_empty((*shape[:-1], self.rows))
        if self.rows and (tokens := x.numel() // columns):
            with kernels._lock:
                status = self._function(kernels._pool, self.address, x.data_ptr(), tokens, y.data_ptr())
            if status:
                kernels._check(status)
        return y
