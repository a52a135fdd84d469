"""The matrices of a checkpoint that others quantised to integers, and the blocks that each of them is repacked to.

What becomes of a matrix follows from headers, and from its order of columns where there is one: four bits around the
middle are Q4_0, with a zero of their own Q4_1, eight bits Q8_0, floats of four bits Q5_0. Where 32 columns in a row do
not share a scale, and for eight bits with zeros of their own, no block can hold it: it is unpacked to the plain dtype
of the model.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmrun.checkpoint.config import ModelConfig
from llmrun.checkpoint.files import Files
from llmrun.checkpoint.recipe import TRANSPOSED_FAMILIES
from llmrun.checkpoint.schemes import Layout, Scheme
from llmrun.checkpoint.shards import read_tensors
from llmrun.checkpoint.spec import ModelSpec, TensorSpec
from llmrun.checkpoint.written import laid_out
from llmrun.errors import CheckpointError
from llmrun.formats import packed_bytes, weight_format

BLOCK = 32
REPACKED = "repacked://"
"""What the place of a model begins with that cannot be run before its weights are repacked."""

_PARTS = {  # by layout: suffix of the integers, scales, zeros, order of columns, shape
    Layout.PACKED: ("weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape"),
    Layout.BYTES: ("weight", "weight_scale", "weight_zero_point", "", ""),
    Layout.MXFP4: ("weight_packed", "weight_scale", "", "", ""),
    Layout.GPTQ: ("qweight", "scales", "qzeros", "g_idx", ""),
    Layout.AWQ: ("qweight", "scales", "qzeros", "", ""),
}
_OF_ACTIVATIONS = ("input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point")
_OF_CACHE = ("k_scale", "v_scale", "q_scale", "k_zero_point", "v_zero_point")
_FLOATS = ("F16", "BF16", "F32")


@dataclass(frozen=True)
class Matrix:
    """One matrix: weight[row, column] = scale[row, group] * (integer[row, column] - zero[row, group])."""

    name: str  # of the weight that it stands for
    rows: int
    columns: int
    n_groups: int
    scheme: Scheme
    becomes: str  # a format
    integers: TensorSpec
    scales: TensorSpec
    zeros: TensorSpec | None  # None: the middle
    order: TensorSpec | None  # the group of each column; None: in order

    @property
    def group_columns(self) -> int:
        """Columns that share a scale, in order."""
        return self.scheme.group_columns or self.columns

    @property
    def source_bytes(self) -> int:
        """Bytes of all its parts."""
        return sum(part.nbytes for part in (self.integers, self.scales, self.zeros, self.order) if part)

    @property
    def tensor(self) -> TensorSpec:
        """What it becomes, at the place where its integers are."""
        shape = (self.rows, self.columns)
        nbytes = packed_bytes(shape, self.becomes)
        return TensorSpec(self.name, self.integers.file, self.integers.offset, nbytes, self.becomes, shape)


def find_matrices(
    tensors: Mapping[str, TensorSpec], scheme: Scheme, files: Files, torch_dtype: str
) -> tuple[dict[str, Matrix], dict[str, TensorSpec]]:
    """The quantised matrices, and all other tensors that the model has, each by name.

    Args:
        files: where small tensors are read from, if they are on this disk: order of columns, shapes, biases.
        torch_dtype: torch's name of the model's own dtype.

    Raises:
        CheckpointError: ``broken-quantized``, ``missing-tensor``, ``unreadable``.
    """
    small = files if "://" not in files.place else None
    packed, *others = _PARTS[scheme.layout]
    matrices: dict[str, Matrix] = {}
    taken: set[str] = set()
    for name, tensor in tensors.items():
        if not name.endswith(f".{packed}") or (scheme.layout is Layout.BYTES and tensor.dtype != "I8"):
            continue
        module = name.removesuffix(packed)
        parts = [tensors.get(module + suffix) if suffix else None for suffix in others]
        matrices[f"{module}weight"] = _matrix(f"{module}weight", scheme, tensor, parts, small, torch_dtype)
        bias = tensors.get(f"{module}bias") if scheme.layout is Layout.GPTQ else None
        taken |= {name, *(part.name for part in parts if part)}
        taken |= {bias.name} if bias and small and _is_zero(bias, small) else set()
    if not matrices:
        raise broken_quantized(f"config.json says {scheme.words}, but no tensor is called *.{packed}")
    unused = () if scheme.layout in (Layout.GPTQ, Layout.AWQ) else (*_OF_ACTIVATIONS, *_OF_CACHE)
    kept = {name: t for name, t in tensors.items() if name not in taken and name.rpartition(".")[2] not in unused}
    return matrices, kept


@dataclass(frozen=True)
class Source:
    """What is repacked: matrices by the names of the weights that they become, and all else that stays as it is."""

    scheme: Scheme
    matrices: Mapping[str, Matrix]
    kept: Mapping[str, TensorSpec]


def read_source(files: Files, config: ModelConfig, scheme: Scheme) -> Source:
    """The tensors of a checkpoint that others quantised to integers.

    Raises:
        CheckpointError: as ``find_matrices`` and ``read_tensors``; ``unsupported-format``.
    """
    if config.model_type in TRANSPOSED_FAMILIES:
        raise CheckpointError(
            "unsupported-format",
            f"the checkpoint is quantised ({scheme.words}), and its family ({config.model_type}) stores its matrices "
            "transposed, so that rows of blocks cannot be made of it",
        )
    return Source(scheme, *find_matrices(read_tensors(files), scheme, files, config.torch_dtype))


def as_repacked(spec: ModelSpec) -> ModelSpec:
    """``spec``, whose matrices are what they become, with every tensor where it will be; it cannot be run."""
    formats = {tensor.name: weight_format(tensor.dtype) for unit in spec.units for tensor in unit.tensors}
    return laid_out(spec, formats, f"{REPACKED}{spec.folder}")


def _matrix(
    name: str,
    scheme: Scheme,
    integers: TensorSpec,
    parts: Sequence[TensorSpec | None],
    small: Files | None,
    torch_dtype: str,
) -> Matrix:
    scales, zeros, order, shape = parts
    if scales is None:
        raise CheckpointError("missing-tensor", f"{integers.name!r:.120} has no scales beside it")
    rows, columns = _extents(integers, scheme)
    n_groups = -(-columns // (scheme.group_columns or columns))
    plain = "F16" if torch_dtype == "float16" else "BF16"
    matrix = Matrix(name, rows, columns, n_groups, scheme, plain, integers, scales, zeros, order)
    _check_parts(matrix)
    if small and shape and _numbers(shape, small) != [rows, columns]:
        raise broken_quantized(
            f"{shape.name!r:.120} says {_numbers(shape, small)}, {integers.name!r:.120} is {integers.shape}"
        )
    groups = _column_groups(matrix, small) if order and small else None
    matrix = replace(matrix, order=order if groups or not small else None)
    unknown = order is not None and small is None and scheme.act_order
    return replace(matrix, becomes=_block_format(matrix)) if not unknown and _has_blocks(matrix, groups) else matrix


def _extents(integers: TensorSpec, scheme: Scheme) -> tuple[int, int]:
    """Rows and columns of the weights that ``integers`` are."""
    dtype, per_word = {Layout.BYTES: ("I8", 1), Layout.MXFP4: ("U8", 2)}.get(scheme.layout, ("I32", 32 // scheme.bits))
    if integers.dtype != dtype or len(integers.shape) != 2 or 0 in integers.shape:
        raise broken_quantized(f"{integers.name!r:.120} is {integers.dtype} {integers.shape}, not a matrix of {dtype}")
    first, second = integers.shape
    if scheme.layout is Layout.GPTQ:
        return second, first * per_word
    return (second * per_word, first) if scheme.layout is Layout.AWQ else (first, second * per_word)


def _check_parts(matrix: Matrix) -> None:
    """Whether scales, zeros and order are as large as the integers and the scheme say."""
    scheme, words = matrix.scheme, -(-matrix.rows * matrix.scheme.bits // 32)
    if scheme.layout is not Layout.GPTQ and matrix.columns % matrix.group_columns:
        raise broken_quantized(
            f"{matrix.name!r:.120} has {matrix.columns:,} columns, no multiple of {scheme.group_columns}"
        )
    if scheme.layout in (Layout.GPTQ, Layout.AWQ):
        shapes: list[tuple[int, ...]] = [(matrix.n_groups, matrix.rows)]
        packed = (matrix.n_groups, words)
    else:
        one = [] if scheme.group_columns else [(1,), (), (1, 1)]  # one scale for all of it
        shapes, packed = [(matrix.rows, matrix.n_groups), *one], (words, matrix.n_groups)
    _check(matrix.scales, ("U8",) if scheme.layout is Layout.MXFP4 else _FLOATS, shapes)
    if matrix.zeros is None and (scheme.layout in (Layout.GPTQ, Layout.AWQ) or not scheme.symmetric):
        raise CheckpointError("missing-tensor", f"{matrix.integers.name!r:.120} has no zeros beside it")
    if matrix.zeros and matrix.zeros.dtype == "I8" and scheme.layout in (Layout.PACKED, Layout.BYTES):
        _check(matrix.zeros, ("I8",), shapes)
    elif matrix.zeros:
        _check(matrix.zeros, ("I32",), [packed])
    if matrix.order:
        _check(matrix.order, ("I32", "I64"), [(matrix.columns,)])


def _check(part: TensorSpec, dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
    if part.dtype not in dtypes or part.shape not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes)
        raise broken_quantized(
            f"{part.name!r:.120} is {part.dtype} {part.shape}, and has to be {'/'.join(dtypes)} {wanted}"
        )


def _block_format(matrix: Matrix) -> str:
    if matrix.scheme.layout is Layout.MXFP4:
        return "Q5_0"
    return "Q8_0" if matrix.scheme.bits == 8 else "Q4_0" if matrix.scheme.symmetric else "Q4_1"


def _has_blocks(matrix: Matrix, groups: Sequence[int] | None) -> bool:
    """Whether blocks of 32 columns hold it, each with one scale; ``groups`` of the columns, ``None``: in order."""
    if matrix.columns % BLOCK or (matrix.scheme.bits == 8 and not matrix.scheme.symmetric):
        return False
    if groups is None:
        return matrix.n_groups == 1 or matrix.group_columns % BLOCK == 0
    return all(len(set(groups[start : start + BLOCK])) == 1 for start in range(0, matrix.columns, BLOCK))


def _column_groups(matrix: Matrix, small: Files) -> list[int] | None:
    """The group of each column; ``None`` where they are in order."""
    assert matrix.order
    groups = _numbers(matrix.order, small)
    if matrix.scheme.layout is Layout.PACKED and -1 in groups:  # compressed-tensors: never set
        return None
    if min(groups) < 0 or max(groups) >= matrix.n_groups:
        said = f"{min(groups):,} to {max(groups):,}, and there are {matrix.n_groups:,}"
        raise broken_quantized(f"{matrix.order.name!r:.120} puts columns into groups {said}")
    in_order = [column // matrix.group_columns for column in range(matrix.columns)]
    return None if groups == in_order else groups


def _numbers(tensor: TensorSpec, files: Files) -> list[int]:
    """The integers of a small tensor."""
    if tensor.dtype not in ("I32", "I64"):
        raise broken_quantized(f"{tensor.name!r:.120} is {tensor.dtype}, not whole numbers")
    numbers = array("i" if tensor.dtype == "I32" else "q")
    numbers.frombytes(_bytes(tensor, files))
    return numbers.tolist()


def _is_zero(bias: TensorSpec, files: Files) -> bool:
    """Whether nothing is added: AutoGPTQ once gave every matrix a bias, whether its model has one or not."""
    return not any(_bytes(bias, files))


def _bytes(tensor: TensorSpec, files: Files) -> bytes:
    data = files.read(tensor.file, tensor.offset, tensor.nbytes)
    if len(data) < tensor.nbytes:
        raise CheckpointError("truncated-shard", f"{tensor.file} ended within {tensor.name!r:.120}")
    return data


def broken_quantized(what: str) -> CheckpointError:
    """The error about parts of a matrix that contradict each other, or config.json."""
    return CheckpointError(
        "broken-quantized", what, hint="fetch the checkpoint again; if it is as it was made, use its .gguf"
    )
