"""Plans sorted into cells by their rings: within a cell slots and their sizes lie between limits.

What a ring takes and what it lets overlap follow from how large and how many its slots are; once both are known all
else is a sum over the stages. So these are branched on, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Cell:
    """Lowest and highest number in each dimension, see ``Dimensions``."""

    low: tuple[int, ...]
    high: tuple[int, ...]

    def splits(self) -> Iterator[tuple[Cell, Cell]]:
        """In two, in each dimension that is open: nothing and something first, then halves."""
        for at, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if low < high:
                middle = (low + high) // 2 if low else 0
                yield self._with(at, low, middle), self._with(at, middle + 1, high)

    def _with(self, at: int, low: int, high: int) -> Cell:
        lows, highs = list(self.low), list(self.high)
        lows[at], highs[at] = low, high
        return replace(self, low=tuple(lows), high=tuple(highs))


@dataclass(frozen=True)
class Dimensions:
    """Where a cell has what: the size of a slot in RAM and on each GPU, slots, visits, relays.

    Sizes and slots are positions in rising lists, size 0 being no ring. 1 where any KV cache visits a GPU; where any
    stage goes from disk to a GPU.
    """

    n_gpus: int

    @property
    def host_slots(self) -> int:
        """Slots in RAM."""
        return 1 + self.n_gpus

    @property
    def gpu_slots(self) -> int:
        """Slots on each GPU."""
        return 2 + self.n_gpus

    @property
    def relays(self) -> int:
        """From disk through RAM to a GPU."""
        return 3 + self.n_gpus

    def visits(self, gpu: int) -> int:
        """Of KV caches to a GPU."""
        return 4 + self.n_gpus + gpu
