"""What measuring needs of a device that computes: the CPU, a CUDA GPU, or a fake one in a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmrun.hardware.buffer import allocate
from llmrun.hardware.timing import nothing
from llmrun.units import MIB

if TYPE_CHECKING:
    import torch

POOL_BYTES = 256 * MIB
"""Several times the largest caches."""

FILL_ELEMENTS = 8191
"""Random numbers that repeat through the pool; a prime, so that no two rows of a matrix are the same."""


@dataclass(frozen=True)
class Target:
    """A device, how to wait for it, and memory on it to work in.

    Attributes:
        pool: bytes, on the device, that are numbers from 0.5 to 1 (1.75 to 2) or their negatives in every dtype.
    """

    device: torch.device
    synchronize: Callable[[], object]
    pool: torch.Tensor

    def matrix(self, dtype: torch.dtype, rows: int, columns: int, index: int = 0) -> torch.Tensor:
        """The ``index``-th matrix of that shape in the pool, beginning again where it ends."""
        nbytes = rows * columns * dtype.itemsize
        begin = (index % max(1, len(self.pool) // nbytes)) * nbytes
        return self.pool[begin : begin + nbytes].view(dtype).view(rows, columns)

    def states_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """What is multiplied with weights of a dtype: the same on a GPU, fp32 on the CPU."""
        import torch

        return torch.float32 if self.device.type == "cpu" else dtype

    def weight(self, dtype: torch.dtype, rows: int, columns: int, index: int = 0) -> torch.Tensor:
        """As ``matrix``, as the runtime has it: on the CPU to be multiplied by as it lies."""
        from llmrun.kernels.packed import plain_weight

        return plain_weight(self.matrix(dtype, rows, columns, index), self.states_dtype(dtype))

    def numbers(self, dtype: torch.dtype, *shape: int) -> torch.Tensor:
        """Fresh small numbers."""
        import torch

        return torch.rand(*shape, dtype=torch.float32).to(dtype).to(self.device)


def cpu_target(pool_bytes: int = POOL_BYTES) -> Target:
    """The CPU, its pool in memory like that of the weights: page-aligned, huge pages where there are any."""
    import torch

    pool = torch.frombuffer(allocate(pool_bytes), dtype=torch.uint8)
    return Target(torch.device("cpu"), nothing, _filled(pool))


def cuda_target(index: int, pool_bytes: int = POOL_BYTES) -> Target:
    """A GPU.

    Raises:
        RuntimeError: CUDA refuses.
    """
    import torch

    device = torch.device("cuda", index)
    pool = torch.empty(pool_bytes, dtype=torch.uint8, device=device)
    return Target(device, lambda: torch.cuda.synchronize(device), _filled(pool))


def _filled(pool: torch.Tensor) -> torch.Tensor:
    """BF16 from 0.5 to 1 in random signs: read as F16 or F32 they are ordinary numbers too, which matters to speed."""
    import torch

    numbers = (torch.rand(FILL_ELEMENTS) / 2 + 0.5) * (torch.randint(0, 2, (FILL_ELEMENTS,)) * 2 - 1)
    pattern = numbers.bfloat16().clamp(-0.996, 0.996)
    flat = pool.view(torch.bfloat16)
    whole = len(flat) // FILL_ELEMENTS * FILL_ELEMENTS
    flat[:whole].view(-1, FILL_ELEMENTS).copy_(pattern.to(pool.device))
    flat[whole:].fill_(0.5)
    return pool
