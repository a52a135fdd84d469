"""The weights on one GPU: resident ones, and a ring of slots that a copier fills ahead of the computation.

The copier takes units from RAM in execution order, wrapping from token to token, while the GPU computes earlier ones.
A prefill may compute more units here than a token does. After either kind of pass the copier goes on as for a token.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from llmrun.checkpoint.spec import ModelSpec, UnitSpec
from llmrun.errors import Interrupted, LlmrunError
from llmrun.planner.memory import passes_host_ring
from llmrun.planner.plan import Plan
from llmrun.runtime.accelerator import Accelerator, Event
from llmrun.runtime.host import POLL_S, HostWeights
from llmrun.runtime.views import as_tensor


@dataclass(frozen=True)
class _Copy:
    memory: torch.Tensor
    slot: int | None  # None: resident
    done: Event


class DeviceWeights:
    """Brings units from RAM to a GPU; ``acquire`` and ``release`` are called by the computation alone.

    Memory: the resident units and the ring's slots on the device, allocated here once.

    Args:
        is_cancelled: asked by the computation while it waits.
    """

    def __init__(
        self,
        name: str,
        spec: ModelSpec,
        plan: Plan,
        host: HostWeights,
        accelerator: Accelerator,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self.accelerator = accelerator
        self.bytes_copied = 0
        self._host = host
        self._is_cancelled = is_cancelled
        self._for_prefill, self._for_token = (_computed(name, spec, plan, prefill=prefill) for prefill in (True, False))
        self._units = {unit.name: unit for unit in self._for_prefill + self._for_token}
        placements = [plan.placement(unit) for unit in self._units]
        self._resident = {
            p.unit: accelerator.allocate(host.layout(p.unit).nbytes) for p in placements if p.home == name
        }
        self._from_host_ring = {p.unit for p in placements if passes_host_ring(p, self._units[p.unit])}
        ring = plan.ring(name)
        self._slots = [accelerator.allocate(ring.slot_bytes) for _ in range(ring.slots)] if ring else []
        self._free: deque[tuple[int, Event]] = deque((slot, None) for slot in range(len(self._slots)))
        self._copies: dict[str, deque[_Copy]] = {unit: deque() for unit in self._units}
        self._changed = threading.Condition()
        self._failure: LlmrunError | None = None
        self._closed = False
        self._incoming: str | None = None
        self._copier: threading.Thread | None = None

    @property
    def units(self) -> list[str]:
        """What it brings in, in one kind of pass or the other."""
        return list(self._units)

    def start(self, *, prefill: bool) -> None:
        """Begin to copy, from the first unit of that kind of pass on."""
        self._failure = None
        self._closed = False
        self._copier = threading.Thread(target=self._run, args=(prefill,), name="copier", daemon=True)
        self._copier.start()

    def acquire(self, unit: str) -> torch.Tensor:
        """The bytes of a unit on the device; the computation queued after this call waits for its copy.

        Raises:
            Interrupted: the run was cancelled.
            LlmrunError: a read failed.
        """
        with self._changed:
            while True:
                if self._failure:
                    raise self._failure
                if self._is_cancelled():
                    raise Interrupted
                if copies := self._copies[unit]:
                    self.accelerator.compute_after(copies[0].done)
                    return copies[0].memory
                self._changed.wait(POLL_S)

    def ring(self) -> tuple[int, tuple[str, ...]]:
        """How many slots hold a whole unit, and the unit on its way in, if any."""
        with self._changed:
            incoming = self._incoming
            ready = sum(
                copy.slot is not None for unit, copies in self._copies.items() if unit != incoming for copy in copies
            )
            return ready, (incoming,) if incoming else ()

    def release(self, unit: str) -> None:
        """The computation that needs the unit in this pass has been queued."""
        with self._changed:
            if unit not in self._resident:
                copy = self._copies[unit].popleft()
                assert copy.slot is not None
                self._free.append((copy.slot, self.accelerator.record()))
                self._changed.notify_all()

    def stop(self) -> bool:
        """End the copier, which leaves the RAM's ring alone from then on; ``start`` begins a new pass.

        Returns whether anything that it had taken out of the RAM's ring is dropped unused.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._copier:
            self._copier.join()
        unused = [(unit, copy) for unit, copies in self._copies.items() for copy in copies if copy.slot is not None]
        for unit, copy in unused:
            assert copy.slot is not None
            self._free.append((copy.slot, copy.done))
            self._copies[unit].clear()
        return any(unit in self._from_host_ring for unit, _ in unused)

    def close(self) -> None:
        """Stop, and let go of the device."""
        self.stop()
        self.accelerator.close()

    def _schedule(self, *, prefill: bool) -> Iterator[UnitSpec]:
        """The units to copy: those of this pass, then those of a token, for as long as tokens need any."""
        units = self._for_prefill if prefill else self._for_token
        while True:
            for unit in units:
                if unit.name not in self._resident or not self._copies[unit.name]:
                    yield unit
            units = self._for_token
            if all(unit.name in self._resident for unit in units):
                return

    def _run(self, prefill: bool) -> None:
        """The copier thread."""
        try:
            for unit in self._schedule(prefill=prefill):
                self._copy(unit)
        except Interrupted:
            return  # told to end
        except LlmrunError as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _copy(self, unit: UnitSpec) -> None:
        """Copy one unit once there is a slot and its bytes are in RAM."""
        slot, after = (None, None) if unit.name in self._resident else self._take_slot()
        try:
            source = as_tensor(self._host.acquire(unit.name, self._is_closed))
        except LlmrunError:
            if slot is not None:
                self._free.append((slot, after))
            raise
        target = self._resident[unit.name] if slot is None else self._slots[slot]
        memory = target[: self._host.layout(unit.name).nbytes]
        self._incoming = unit.name
        done = self.accelerator.copy(memory, source[: memory.nbytes], after)
        with self._changed:
            self._copies[unit.name].append(_Copy(memory, slot, done))
            self.bytes_copied += memory.nbytes
            self._changed.notify_all()
        self.accelerator.synchronize(done)
        self._incoming = None
        self._host.release(unit.name)

    def _take_slot(self) -> tuple[int, Event]:
        """A free slot, and what has to end before it is written."""
        with self._changed:
            while not self._free and not self._closed:
                self._changed.wait()
            if self._closed:
                raise Interrupted
            return self._free.popleft()

    def _is_closed(self) -> bool:
        return self._closed


def _computed(device: str, spec: ModelSpec, plan: Plan, *, prefill: bool) -> list[UnitSpec]:
    """The units with weights that a device computes in that kind of pass, in execution order."""
    here = [spec.unit(p.unit) for p in plan.placements if p.computed_on(prefill=prefill) == device]
    return [unit for unit in here if unit.tensors]
