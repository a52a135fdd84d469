"""From a checkpoint's files to its ``ModelSpec``: configuration and headers only, milliseconds, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path

from llmrun.checkpoint.config import ModelConfig, read_config
from llmrun.checkpoint.duplicate import same_samples
from llmrun.checkpoint.files import Files, LocalFiles
from llmrun.checkpoint.float8 import float8_of, with_scales
from llmrun.checkpoint.grouping import Groups, by_place, check_complete, group
from llmrun.checkpoint.integers import as_repacked, read_source
from llmrun.checkpoint.quantised import quantization_in, scheme_in
from llmrun.checkpoint.schemes import Scheme
from llmrun.checkpoint.shards import read_tensors
from llmrun.checkpoint.spec import ModelSpec, TensorSpec, UnitKind, UnitSpec
from llmrun.errors import CheckpointError
from llmrun.formats import FORMATS, weight_format

_TORCH_NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def read_spec(folder: Path, *, name: str | None = None, trust_remote_code: bool = False) -> ModelSpec:
    """What the checkpoint in ``folder`` holds; ``name`` is what people call it (default: the folder's name).

    One that others quantised to integers is described as it is once it is repacked: ``is_local`` is then False.

    Raises:
        CheckpointError: what is in ``folder`` is missing, broken or of a kind that cannot run; see ``docs/errors.md``.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise CheckpointError("unreadable", f"{folder} is not a folder")
    return spec_from_headers(LocalFiles(folder), name=name or folder.name, trust_remote_code=trust_remote_code)


def spec_from_headers(files: Files, *, name: str, trust_remote_code: bool = False) -> ModelSpec:
    """What the checkpoint of these files holds, wherever they are: ``folder`` of the result is their place.

    Raises: as ``read_spec``.
    """
    config = read_config(files, trust_remote_code=trust_remote_code)
    scheme = scheme_in(config.raw)
    groups = group(_repacked(files, config, scheme) if scheme else _as_they_lie(files, config), config.n_layers)
    windows = config.windows()
    check_complete(groups.layers, windows)
    embedding, head, tied = _ends(files, config, groups)
    dtype = _main_dtype(groups, config)
    kv_bytes = 2 * config.n_kv_heads * config.head_dim * weight_format(dtype).block_bytes  # keys and values
    layers = tuple(
        UnitSpec(f"layer {n}", UnitKind.LAYER, n, tensors, 2 * _matrix_params(tensors), kv_bytes, windows[n])
        for n, tensors in enumerate(groups.layers)
    )
    spec = ModelSpec(
        name=name,
        folder=files.place,
        architecture=config.architecture,
        model_type=config.model_type,
        dtype=dtype,
        n_layers=config.n_layers,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        vocab_size=config.vocab_size,
        context_tokens=config.context_tokens,
        tied_embeddings=tied,
        embedding=embedding,
        units=(
            UnitSpec("embedding", UnitKind.EMBEDDING, None, () if tied else (embedding,), 0),
            UnitSpec("rest", UnitKind.REST, None, groups.rest, 0),
            *layers,
            UnitSpec("head", UnitKind.HEAD, None, head, 2 * _matrix_params(head)),
        ),
    )
    return as_repacked(spec) if scheme else spec


def _repacked(files: Files, config: ModelConfig, scheme: Scheme) -> dict[str, TensorSpec]:
    """The tensors of a checkpoint that others quantised to integers, as they will be."""
    source = read_source(files, config, scheme)
    return {**source.kept, **{name: matrix.tensor for name, matrix in source.matrices.items()}}


def _as_they_lie(files: Files, config: ModelConfig) -> dict[str, TensorSpec]:
    """The tensors of a checkpoint that is run in place, 8-bit floats with the places of their scales."""
    return with_scales(read_tensors(files), float8_of(quantization_in(config.raw)))


def _ends(files: Files, config: ModelConfig, groups: Groups) -> tuple[TensorSpec, tuple[TensorSpec, ...], bool]:
    """The embedding matrix, the tensors of the head, and whether the two are tied."""
    matrix = _only_matrix(groups.embedding, "embedding")
    head_matrix = _only_matrix(groups.head, "head")
    tied = config.tied if config.tied is not None else head_matrix is None or matrix is None
    embedding = matrix or (head_matrix if tied else None)
    if embedding is None:
        raise CheckpointError("missing-tensor", "the checkpoint has no embedding matrix")
    if head_matrix is None and not tied:
        raise CheckpointError("missing-tensor", "the checkpoint has no head, and config.json says that it is not tied")
    if tied and head_matrix is not None and head_matrix != embedding:
        # transformers, too, ties two matrices that are both there only if they are equal
        tied = same_samples(files, embedding, head_matrix)
    if embedding.scales:  # its rows are read one by one
        raise CheckpointError(
            "unsupported-format", f"the embedding {embedding.name!r:.120} is in 8-bit floats with scales beside it"
        )
    for tensor in (embedding, *((head_matrix,) if head_matrix else ())):
        _check_vocabulary(tensor, config.vocab_size)
    if not tied:
        return embedding, groups.head, False
    biases = (tensor for tensor in groups.head if tensor.name.endswith("bias"))
    return embedding, by_place((embedding, *biases)), True


def _only_matrix(tensors: Iterable[TensorSpec], part: str) -> TensorSpec | None:
    found = [tensor for tensor in tensors if tensor.name.endswith(".weight")]
    if len(found) > 1:
        names = ", ".join(tensor.name for tensor in found)
        raise CheckpointError("unsupported-architecture", f"more than one {part} matrix: {names:.200}")
    return found[0] if found else None


def _check_vocabulary(tensor: TensorSpec, vocab_size: int) -> None:
    if len(tensor.shape) != 2 or tensor.shape[0] != vocab_size:
        raise CheckpointError(
            "broken-config",
            f"config.json says a vocabulary of {vocab_size:,}, but {tensor.name!r} has the shape {tensor.shape}",
        )


def _main_dtype(groups: Groups, config: ModelConfig) -> str:
    """The dtype that holds most bytes of the layers; where no model computes in that, what config.json names."""
    nbytes: Counter[str] = Counter()
    for tensors in groups.layers:
        for tensor in tensors:
            nbytes[tensor.dtype] += tensor.nbytes
    main = max(sorted(nbytes), key=lambda dtype: nbytes[dtype])
    return main if FORMATS[main].is_computed_in else _TORCH_NAMES.get(config.torch_dtype, "BF16")


def _matrix_params(tensors: Iterable[TensorSpec]) -> int:
    """Parameters that are multiplied with every token: all but vectors and scales."""
    tensors = tuple(tensors)
    scales = {tensor.scales.tensor for tensor in tensors if tensor.scales}
    return sum(prod(tensor.shape) for tensor in tensors if len(tensor.shape) > 1 and tensor.name not in scales)
