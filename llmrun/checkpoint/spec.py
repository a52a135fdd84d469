"""What a checkpoint holds, unit by unit, in the order in which a forward pass needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from llmrun.checkpoint.stretches import enclosing, stretches

SCHEMA_VERSION = 1


class UnitKind(StrEnum):
    """What a unit is to the model."""

    EMBEDDING = "embedding"  # one row a token is gathered from it, never the whole matrix
    REST = "rest"  # the small tensors outside of the others (final norm, learned positions): always resident
    LAYER = "layer"
    HEAD = "head"


@dataclass(frozen=True)
class ScaleBlocks:
    """Where the scales of a matrix of 8-bit floats are: one for each block of ``rows`` x ``columns`` weights.

    Blocks at the edges are cut off; the scales lie in rows of blocks.
    """

    tensor: str  # of the same unit
    rows: int
    columns: int


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a checkpoint: where its bytes lie."""

    name: str
    file: str  # shard, relative to the folder of the checkpoint
    offset: int  # of its first byte, counted from the start of the file
    nbytes: int
    dtype: str  # its format by the name in ``llmrun.formats``: BF16, F16, F32, Q8_0, Q4_K, ...
    shape: tuple[int, ...]  # of its weights, however they are packed: (rows, columns) of a matrix
    paired_head_dim: int | None = None  # rows of each head lie as pairs (x0 y0 x1 y1), not as halves (x0 x1 y0 y1)
    minus_one: bool = False  # the weights are what is stored less one
    scales: ScaleBlocks | None = None  # the weights are what is stored times these


@dataclass(frozen=True)
class UnitSpec:
    """The planner's atom: the tensors that are brought in and dropped together."""

    name: str  # "embedding", "rest", "layer 0", "layer 1", ..., "head"
    kind: UnitKind
    layer: int | None
    tensors: tuple[TensorSpec, ...]
    flops_per_token: int
    kv_bytes_per_token: int = 0
    kv_window_tokens: int | None = None  # a sliding window: the cache never holds more than this

    @cached_property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def parameters(self) -> tuple[TensorSpec, ...]:
        """Its tensors but for those with the scales of others."""
        scales = {tensor.scales.tensor for tensor in self.tensors if tensor.scales}
        return tuple(tensor for tensor in self.tensors if tensor.name not in scales)

    @cached_property
    def n_params(self) -> int:
        """Number of its weights."""
        return sum(_n_elements(tensor.shape) for tensor in self.parameters)

    @cached_property
    def weight_format(self) -> str:
        """The format of most of its bytes; empty where it has none."""
        nbytes: Counter[str] = Counter()
        for tensor in self.tensors:
            nbytes[tensor.dtype] += tensor.nbytes
        return max(sorted(nbytes), key=lambda name: nbytes[name], default="")

    @cached_property
    def buffer_bytes(self) -> int:
        """Bytes of the page-aligned buffer that holds it, as ``layout`` lays it out."""
        return sum(len(enclosing(stretch)) for stretch in stretches(self.tensors))


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint as its headers describe it; no weight was read to make it.

    With tied embeddings the one matrix belongs to the head; the embedding unit then has no tensors of its own.
    """

    name: str
    folder: str  # absolute; hf://... or gguf://... where only the headers are known
    architecture: str  # class name in transformers: LlamaForCausalLM
    model_type: str  # transformers' name of the family: llama
    dtype: str  # plain, of the computation on a GPU and of the KV cache: BF16, F16, F32
    n_layers: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    context_tokens: int
    tied_embeddings: bool
    embedding: TensorSpec
    units: tuple[UnitSpec, ...]  # embedding, rest, layers in order, head
    schema: int = SCHEMA_VERSION

    @property
    def is_local(self) -> bool:
        """Whether the weights are on this disk, so that the model can be run and not only planned."""
        return "://" not in self.folder

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all weights; a tied matrix is counted once."""
        return sum(unit.nbytes for unit in self.units)

    @cached_property
    def n_params(self) -> int:
        """Number of parameters; a tied matrix is counted once."""
        return sum(unit.n_params for unit in self.units)

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache of one token over all layers."""
        return sum(unit.kv_bytes_per_token for unit in self.units)

    @property
    def flops_per_token(self) -> int:
        """Multiply-adds counted as two, attention over the past left out."""
        return sum(unit.flops_per_token for unit in self.units)

    @cached_property
    def weight_formats(self) -> Mapping[str, int]:
        """Bytes in each format, that of most bytes first; a tied matrix is counted once."""
        nbytes: Counter[str] = Counter()
        for unit in self.units:
            for tensor in unit.tensors:
                nbytes[tensor.dtype] += tensor.nbytes
        return dict(nbytes.most_common())

    @cached_property
    def matrix_formats(self) -> frozenset[str]:
        """The formats of its matrices: what products are made with, and embeddings."""
        tensors = [tensor for unit in self.units for tensor in unit.tensors]
        return frozenset(tensor.dtype for tensor in tensors if len(tensor.shape) > 1)

    @property
    def format_words(self) -> str:
        """``BF16``, ``Q4_K+Q6_K``: the formats of its weights, but for those of a few."""
        return "+".join(name for name, nbytes in self.weight_formats.items() if nbytes * 20 >= self.nbytes)

    @cached_property
    def layer_shape(self) -> str:
        """What decides how fast its layers compute, in words: models that share it share measured figures."""
        heads = f"{self.n_heads}/{self.n_kv_heads} heads of {self.head_dim}"
        said = f"{self.model_type} {self.hidden_size} x {self.intermediate_size}, {heads}, {self.dtype}"
        formats = self._layer_formats
        return said if formats <= {self.dtype} else f"{said}, {'+'.join(sorted(formats))}"

    @property
    def _layer_formats(self) -> set[str]:
        """The formats of the matrices of its layers."""
        layers = (unit for unit in self.units if unit.kind is UnitKind.LAYER)
        return {tensor.dtype for unit in layers for tensor in unit.parameters if len(tensor.shape) > 1}

    def unit(self, name: str) -> UnitSpec:
        """The unit of that name.

        Raises:
            KeyError: there is none.
        """
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, UnitSpec]:
        return {unit.name: unit for unit in self.units}

    def path(self, file: str) -> Path:
        """Where a shard lies."""
        assert self.is_local, "headers alone hold no weights"
        return Path(self.folder) / file


def _n_elements(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count
