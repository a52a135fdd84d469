"""What the runtime needs of a GPU, and two that have it: CUDA, and an emulation by a pool of RAM.

The emulation runs the same code on machines without a GPU: its memory has a budget of its own, its copies are real.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any, Protocol

import torch

from llmrun.errors import DeviceError
from llmrun.units import format_bytes

_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device, not only for the current one

Event = Any
"""A point in the work of a stream: ``torch.cuda.Event``, or None where everything is done at once."""


class Accelerator(Protocol):
    """A device with memory of its own that copies while it computes."""

    device: torch.device

    def allocate(self, nbytes: int) -> torch.Tensor:
        """``nbytes`` of device memory as a tensor of bytes."""

    def pin(self, memories: Iterable[memoryview]) -> None:
        """Lock RAM in place, for all GPUs, so that copies from it run at the speed of the link."""

    def copy(self, target: torch.Tensor, source: torch.Tensor, after: Event) -> Event:
        """Queue a copy to the device that waits for ``after``; returns its end."""

    def record(self) -> Event:
        """The end of the computation queued so far."""

    def compute_after(self, event: Event) -> None:
        """Let the computation queued from now on wait for ``event``."""

    def synchronize(self, event: Event) -> None:
        """Wait here until ``event`` has happened."""

    def used_bytes(self) -> tuple[int, int]:
        """Memory taken on the device now, and at its peak."""

    def close(self) -> None:
        """Unlock what was pinned."""


class CudaAccelerator:
    """An NVIDIA GPU: a copy stream beside the compute stream, pinned RAM, events between them."""

    def __init__(self, index: int) -> None:
        self.device = torch.device("cuda", index)
        self._copies = torch.cuda.Stream(self.device)
        self._pinned: list[int] = []
        self._context_bytes = self._taken_bytes()

    def allocate(self, nbytes: int) -> torch.Tensor:
        """``nbytes`` of device memory as a tensor of bytes.

        Raises:
            DeviceError: ``device-memory``, where the driver has no more.
        """
        try:
            return torch.empty(nbytes, dtype=torch.uint8, device=self.device)
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceError(
                "device-memory",
                f"{self.device}: {format_bytes(nbytes)} cannot be allocated",
                hint="another process may use the GPU; a smaller --vram leaves more room",
            ) from error

    def pin(self, memories: Iterable[memoryview]) -> None:
        """Lock RAM in place; where the system refuses, copies run unpinned and slower."""
        for memory in memories:
            tensor = torch.frombuffer(memory, dtype=torch.uint8)
            address = tensor.data_ptr()
            if int(torch.cuda.cudart().cudaHostRegister(address, tensor.nbytes, _PORTABLE)) == 0:
                self._pinned.append(address)
            else:
                self._forget_error()

    def copy(self, target: torch.Tensor, source: torch.Tensor, after: Event) -> Event:
        """Queue a copy on the copy stream."""
        with torch.cuda.stream(self._copies):
            if after is not None:
                self._copies.wait_event(after)
            target.copy_(source, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._copies)
        return done

    def record(self) -> Event:
        """The end of the computation queued so far."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return event

    def compute_after(self, event: Event) -> None:
        """Let the computation wait for a copy."""
        torch.cuda.current_stream(self.device).wait_event(event)

    def synchronize(self, event: Event) -> None:
        """Wait here until ``event`` has happened."""
        event.synchronize()

    def used_bytes(self) -> tuple[int, int]:
        """What torch holds, now and at its peak, and the context."""
        reserved, peak = torch.cuda.memory_reserved(self.device), torch.cuda.max_memory_reserved(self.device)
        return self._context_bytes + reserved, self._context_bytes + peak

    def close(self) -> None:
        """Unlock what was pinned."""
        while self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._pinned.pop())

    def _forget_error(self) -> None:
        """CUDA reports a failed call once more with the next one, whichever that is."""
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device=self.device)

    def _taken_bytes(self) -> int:
        """What the process takes of the device beside torch's tensors: its context, as NVML counts it."""
        import pynvml

        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(self.device.index)
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            taken = next((p.usedGpuMemory or 0 for p in processes if p.pid == os.getpid()), 0)
        except pynvml.NVMLError:
            return 0
        return max(0, int(taken) - torch.cuda.memory_reserved(self.device))


class EmulatedAccelerator:
    """A GPU played by RAM.

    Args:
        budget_bytes: what its memory may hold; allocating more fails as on a device.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.device = torch.device("cpu")
        self.budget_bytes = budget_bytes
        self.copied_bytes = 0
        self._used_bytes = 0

    def allocate(self, nbytes: int) -> torch.Tensor:
        """``nbytes`` of its pool as a tensor of bytes.

        Raises:
            DeviceError: ``device-memory``, over its budget.
        """
        if self._used_bytes + nbytes > self.budget_bytes:
            raise DeviceError("device-memory", f"emulated GPU: {format_bytes(nbytes)} cannot be allocated")
        self._used_bytes += nbytes
        return torch.empty(nbytes, dtype=torch.uint8)

    def pin(self, memories: Iterable[memoryview]) -> None:
        """RAM needs no pinning here."""

    def copy(self, target: torch.Tensor, source: torch.Tensor, after: Event) -> Event:
        """Copy at once."""
        target.copy_(source)
        self.copied_bytes += source.nbytes

    def record(self) -> Event:
        """Everything is done when it returns."""

    def compute_after(self, event: Event) -> None:
        """Everything is done when it returns."""

    def synchronize(self, event: Event) -> None:
        """Everything is done when it returns."""

    def used_bytes(self) -> tuple[int, int]:
        """What was allocated; nothing is ever given back before the end."""
        return self._used_bytes, self._used_bytes

    def close(self) -> None:
        """Nothing is held."""
