"""The plain implementation that every placement is tested against: read a unit, compute it, drop it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from llmrun.checkpoint.spec import ModelSpec, TensorSpec
from llmrun.models.dtypes import torch_dtype
from llmrun.models.skeleton import build_skeleton


class SequentialWeights:
    """Reads each unit when it is asked for, into fresh memory. No threads, no ring, nothing kept."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._dtype = torch_dtype(spec.dtype)

    @contextmanager
    def acquire(self, unit: str) -> Iterator[Mapping[str, torch.Tensor]]:
        """The tensors of a unit by their names in the checkpoint."""
        yield {tensor.name: self._read(tensor) for tensor in self._spec.unit(unit).tensors}

    def rows(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The ids as they are and the whole embedding matrix."""
        return ids, self._read(self._spec.embedding)

    def is_permanent(self, unit: str) -> bool:
        """Nothing is."""
        return False

    def device(self, unit: str) -> torch.device:
        """Everything is computed on the CPU."""
        return torch.device("cpu")

    def _read(self, tensor: TensorSpec) -> torch.Tensor:
        with self._spec.path(tensor.file).open("rb") as file:
            file.seek(tensor.offset)
            data = torch.frombuffer(bytearray(file.read(tensor.nbytes)), dtype=torch_dtype(tensor.dtype))
        return data.view(tensor.shape).to(self._dtype)


@torch.inference_mode()
def run_sequential(spec: ModelSpec, tokens: Sequence[int]) -> torch.Tensor:
    """Logits ``(T, V)`` of all positions in fp32, without a KV cache.

    Memory: one unit at a time, and the activations of the whole sequence.
    """
    weights = SequentialWeights(spec)
    skeleton = build_skeleton(spec, weights)
    with weights.acquire("rest") as rest:
        skeleton.bind_rest(rest)
    logits: torch.Tensor = skeleton.model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits
    return logits[0].float()
