"""Running a model over a text to see what its matrices are multiplied with, in the memory of one layer.

Every stretch of the text goes through the first layer, then every one through the second: so each layer's weights are
read once, held as float32, and dropped. Nothing of this is fast; it is done once for a quantised checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from llmrun.checkpoint.spec import ModelSpec, TensorSpec, UnitKind
from llmrun.formats import weight_format
from llmrun.kernels.reference import dequantise
from llmrun.models.skeleton import Skeleton, build_skeleton
from llmrun.models.unit_module import HEAD
from llmrun.quantize.importance import MeanSquares

STRETCH_TOKENS = 512
_HEAD_TOKENS = 64  # of each stretch: logits of all would take more memory than a layer
_FLOAT_BYTES = 4


def calibration_bytes(spec: ModelSpec, n_tokens: int) -> int:
    """Memory that ``column_importance`` takes: a layer or the head as floats, what is being read, the activations."""
    widest = max(max(tensor.shape, default=1) for unit in spec.units for tensor in unit.tensors)
    floats = max(_n_weights(unit.tensors) for unit in spec.units if unit.kind is not UnitKind.EMBEDDING)
    raw_bytes = 3 * max(tensor.nbytes for unit in spec.units for tensor in unit.tensors if unit.kind is UnitKind.LAYER)
    stretch_bytes = STRETCH_TOKENS * widest * _FLOAT_BYTES * 4
    head_bytes = _HEAD_TOKENS * spec.vocab_size * _FLOAT_BYTES * 2
    hidden_bytes = n_tokens * spec.hidden_size * _FLOAT_BYTES
    return floats * _FLOAT_BYTES + raw_bytes + max(stretch_bytes, head_bytes) + hidden_bytes


@torch.inference_mode()
def column_importance(
    spec: ModelSpec, tokens: Sequence[int], *, trust_remote_code: bool = False, done: Callable[[str], object]
) -> dict[str, Tensor]:
    """The mean square of what each matrix of layers and head is multiplied with, by name of tensor.

    Args:
        tokens: of the text; it is cut into stretches of ``STRETCH_TOKENS``.
        done: is told each unit when it has been run.

    Raises:
        CheckpointError: ``unsupported-architecture``, ``truncated-shard``.
    """
    source = _OneUnit(spec)
    skeleton = build_skeleton(spec, source, trust_remote_code=trust_remote_code, own_modules=False)
    with source.acquire("rest") as rest:
        skeleton.bind_rest(rest)
    squares = MeanSquares()
    _watch(skeleton.model, source, squares)
    stretches = [list(tokens[at : at + STRETCH_TOKENS]) for at in range(0, len(tokens), STRETCH_TOKENS)]
    hidden: list[Tensor | None] = [None] * len(stretches)
    for unit in spec.units:
        if unit.kind in (UnitKind.LAYER, UnitKind.HEAD):
            hidden = [_run(skeleton, unit.name, *each) for each in zip(stretches, hidden, strict=True)]
            done(unit.name)
    return squares.importance()


def _run(skeleton: Skeleton, unit: str, stretch: list[int], hidden: Tensor | None) -> Tensor | None:
    """One unit over one stretch: the hidden states after it."""
    gate = skeleton.gate
    gate.only, gate.hidden = unit, hidden
    ids = torch.tensor([stretch])
    if unit == HEAD:
        assert hidden is not None
        ids, gate.hidden = ids[:, -_HEAD_TOKENS:], hidden[:, -_HEAD_TOKENS:]
    skeleton.model(input_ids=ids, use_cache=False)
    result = gate.hidden
    gate.open()
    return result


def _watch(model: nn.Module, source: _OneUnit, squares: MeanSquares) -> None:
    """Every module whose weight is a matrix of the unit that is held tells what it is given."""

    def tell(module: nn.Module, inputs: tuple[object, ...]) -> None:
        name = source.name_of(module.weight)
        if name and inputs and isinstance(inputs[0], Tensor):
            squares.add(name, inputs[0])

    for module in model.modules():
        if isinstance(getattr(module, "weight", None), Tensor):
            module.register_forward_pre_hook(tell)


class _OneUnit:
    """A source of weights that holds one unit, as float32 on the CPU, until another one is asked for."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._unit = ""
        self._held: dict[str, Tensor] = {}

    @contextmanager
    def acquire(self, unit: str) -> Iterator[Mapping[str, Tensor]]:
        """The tensors of a unit by their names in the checkpoint."""
        if unit != self._unit:
            self._unit, self._held = unit, {}
            for tensor in self._spec.unit(unit).tensors:
                self._held[tensor.name] = _floats(self._spec, tensor, 0, tensor.nbytes).reshape(tensor.shape)
        yield self._held

    def name_of(self, weight: object) -> str | None:
        """What the checkpoint calls a matrix that is held."""
        return next((name for name, held in self._held.items() if held is weight and held.dim() == 2), None)

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The ids renumbered, and the embeddings of those that there are."""
        matrix = self._spec.embedding
        row_bytes = matrix.nbytes // matrix.shape[0]
        unique, renumbered = ids.unique(return_inverse=True)
        found = [_floats(self._spec, matrix, row * row_bytes, row_bytes) for row in unique.tolist()]
        return renumbered, torch.stack(found).reshape(len(found), -1)

    @property
    def only_cpu(self) -> bool:
        """It does."""
        return True

    def is_permanent(self, unit: str) -> bool:
        """Nothing is."""
        return False

    def device(self, unit: str) -> torch.device:
        """Everything is computed on the CPU."""
        return torch.device("cpu")

    def dtype(self, unit: str) -> torch.dtype:
        """As the CPU computes."""
        return torch.float32


def _floats(spec: ModelSpec, tensor: TensorSpec, start: int, nbytes: int) -> Tensor:
    """Some bytes of a plain tensor as float32, flat."""
    with spec.path(tensor.file).open("rb") as file:
        file.seek(tensor.offset + start)
        data = bytearray(file.read(nbytes))
    fmt = weight_format(tensor.dtype)
    return dequantise(fmt, torch.frombuffer(data, dtype=torch.uint8).reshape(1, -1), len(data) // fmt.block_bytes)[0]


def _n_weights(tensors: Sequence[TensorSpec]) -> int:
    return sum(tensor.nbytes // weight_format(tensor.dtype).block_bytes for tensor in tensors)
