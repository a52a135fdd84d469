"""The plain implementation that every placement is tested against: read a unit, compute it, drop it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from llmrun.checkpoint.layout import layout
from llmrun.checkpoint.spec import ModelSpec
from llmrun.models.skeleton import build_skeleton
from llmrun.runtime.views import as_tensor, embedding_rows, unit_views


class SequentialWeights:
    """Reads each unit when it is asked for, into fresh memory. No threads, no ring, nothing kept."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    @contextmanager
    def acquire(self, unit: str) -> Iterator[Mapping[str, torch.Tensor]]:
        """The tensors of a unit by their names in the checkpoint."""
        memory, there = torch.zeros(0, dtype=torch.uint8), layout(self._spec.unit(unit))
        for extent in there.extents:
            with self._spec.path(extent.file).open("rb") as file:
                file.seek(extent.file_offset)
                read = bytearray(file.read(extent.nbytes)).ljust(extent.nbytes)
            memory = torch.cat([memory, torch.frombuffer(read, dtype=torch.uint8)])
        yield unit_views(memory, there, torch.float32)

    def rows(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The ids as they are and the whole embedding matrix."""
        matrix = self._spec.embedding
        with self._spec.path(matrix.file).open("rb") as file:
            file.seek(matrix.offset)
            return ids, embedding_rows(as_tensor(memoryview(bytearray(file.read(matrix.nbytes)))), matrix)

    def is_permanent(self, unit: str) -> bool:
        """Nothing is."""
        return False

    def device(self, unit: str) -> torch.device:
        """Everything is computed on the CPU."""
        return torch.device("cpu")

    def dtype(self, unit: str) -> torch.dtype:
        """As the CPU computes."""
        return torch.float32

    @property
    def only_cpu(self) -> bool:
        """It computes everything."""
        return True


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
