"""Where the weights are now: the one thing that the wrapped model asks for them.

A pass is a prefill or computes one token; a plan may have a unit computed on another device in the one than in the
other. Readers and copiers run ahead into the next pass, and take it for a token: so it is after a prompt and after
every token but an answer's last. Where the guess is wrong, and only then, what they brought for it is dropped.

Passes may draft: of what is streamed they take substitutes, copies in fewer bits that the first passes over tokens
left. What readers and copiers bring meanwhile is for the pass after them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch

from llmrun.checkpoint.spec import ModelSpec, UnitKind
from llmrun.errors import Interrupted
from llmrun.events import BytesRead, Event, LayerDone, RingSample, Stall
from llmrun.models.dtypes import compute_dtype
from llmrun.planner.plan import CPU, Plan, is_gpu
from llmrun.runtime.accelerator import Accelerator
from llmrun.runtime.device import DeviceWeights
from llmrun.runtime.host import HostWeights
from llmrun.runtime.kept import KeptWeights
from llmrun.runtime.kv_cache import KVCache
from llmrun.runtime.rows import EmbeddingRows
from llmrun.runtime.substitutes import Substitutes
from llmrun.runtime.views import as_tensor, embedding_rows, unit_views

STALL_S = 0.0005
"""Shorter waits are the cost of asking, not of waiting for weights."""

TELL_S = 0.1
"""How often, at most, it is told what is on its way in."""


class Residency:
    """Gives each unit's tensors to the computation, resident ones at once, streamed ones when they have come in.

    Args:
        host: the weights in RAM, already reading.
        accelerators: the GPUs of the plan by name; where one is missing its units cannot be acquired.
        cache: the KV cache, whose layers visit the device that computes them.
        emit: takes the events of the run.
        cancel: set from another thread to break off the pass.
    """

    def __init__(
        self,
        spec: ModelSpec,
        plan: Plan,
        host: HostWeights,
        accelerators: Mapping[str, Accelerator],
        cache: KVCache,
        emit: Callable[[Event], None],
        cancel: threading.Event,
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._host = host
        self._cache = cache
        self._emit = emit
        self._cancel = cancel
        self._devices = {
            name: DeviceWeights(name, spec, plan, host, accelerator, self._is_cancelled)
            for name, accelerator in accelerators.items()
        }
        self._placements = {placement.unit: placement for placement in plan.placements}
        for p in plan.placements:  # what no planner makes: the copiers would take bytes of the pass before
            assert p.prefill_device == p.device or (p.device == CPU and is_gpu(p.prefill_device)), p
        self._kinds_differ = any(p.prefill_device != p.device for p in plan.placements)
        self._only_cpu = not any(is_gpu(device) for p in plan.placements for device in (p.device, p.prefill_device))
        self._prefill = True
        self._prefill_expected = True
        self._computed = [u.name for u in spec.units if u.kind in (UnitKind.LAYER, UnitKind.HEAD) and u.tensors]
        self._kept = KeptWeights(spec, plan)
        self._fine = plan.precision.quality.fine
        self._permanent: dict[str, dict[str, torch.Tensor]] = {}
        self._substitutes = Substitutes(spec, plan, self._kept)
        self._drafting = False
        self._held: dict[str, Mapping[str, torch.Tensor]] = {}
        self._rows = EmbeddingRows(spec.path(spec.embedding.file), spec.embedding)
        self._reported = {"disk": 0, CPU: 0}
        self._told_s = 0.0
        self._told: dict[str, tuple[int, tuple[str, ...]]] = {}
        copied = [unit for device in self._devices.values() for unit in device.units]
        if accelerators:
            next(iter(accelerators.values())).pin(host.memories(copied))  # once, for all GPUs
        self._start_copiers(prefill=True)

    def begin(self, *, prefill: bool) -> None:
        """A pass of that kind begins, at the first unit."""
        if self._drafting:
            return
        if prefill and self._host.failed:
            self.restart()  # try again what failed while nobody was waiting for it
        if self._kinds_differ and prefill != self._prefill_expected:
            dropped = [device.stop() for device in self._devices.values()]
            if any(dropped):  # bytes in RAM stay where they are as long as none were handed on
                self._host.restart()
            self._start_copiers(prefill=prefill)
        self._prefill, self._prefill_expected = prefill, False
        if prefill:
            self._told = {}  # a new request is told the whole

    def acquire(self, unit: str) -> AbstractContextManager[Mapping[str, torch.Tensor]]:
        """The tensors of a unit by their names in the checkpoint, on the device that computes it in this pass.

        A layer's KV cache is there too until the end.
        """
        if (lasting := self._lasting(unit)) is not None and unit not in self._held:
            return _Lasting(self, unit, lasting)
        return self._acquire(unit)

    @contextmanager
    def _acquire(self, unit: str) -> Iterator[Mapping[str, torch.Tensor]]:
        if unit in self._held:
            self._check_cancelled()  # between the chunks of a long prompt
            yield self._held[unit]
            return
        weights = self._wait_for(unit)
        try:
            with self._cache.visit(unit, self._device_name(unit)):
                yield weights
        finally:
            self._release(unit)
        self._done(unit)

    def _done(self, unit: str) -> None:
        self._tell()
        if not self._drafting:
            self._emit(LayerDone(time.monotonic(), unit, self._device_name(unit)))

    @contextmanager
    def hold(self, unit: str) -> Iterator[None]:
        """Keep a unit acquired, so that several calls of its module use it before it goes."""
        with self.acquire(unit) as weights:
            self._held[unit] = weights
            try:
                yield
            finally:
                del self._held[unit]

    @contextmanager
    def drafting(self) -> Iterator[None]:
        """Passes within, over a token or a few, draft; there have to be all substitutes."""
        assert self.can_draft, "a pass over a token makes what drafts take"
        self._drafting, self._prefill = True, False
        try:
            yield
        finally:
            self._drafting = False

    @property
    def can_draft(self) -> bool:
        """Whether every layer and the head are there without a read: as they are, or as a substitute."""
        return all(self._substitutes.get(unit) or unit in self._permanent for unit in self._computed)

    def is_permanent(self, unit: str) -> bool:
        """Whether the tensors that a unit has in this kind of pass stay valid for good."""
        return self._lasting(unit) is not None

    def device(self, unit: str) -> torch.device:
        """Where the unit is computed in this kind of pass."""
        name = self._device_name(unit)
        return self._devices[name].accelerator.device if is_gpu(name) else torch.device("cpu")

    def dtype(self, unit: str) -> torch.dtype:
        """What the unit is computed in, in this kind of pass."""
        return compute_dtype(self._spec, self._device_name(unit))

    @property
    def only_cpu(self) -> bool:
        """Whether the CPU computes every unit in every pass."""
        return self._only_cpu

    def rows(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(ids', weight)`` with ``weight[ids']`` the embeddings of ``ids``: the matrix, or the rows needed."""
        owner = "head" if self._spec.tied_embeddings else "embedding"
        weight = self._embedding_in_memory(owner)
        if weight is not None:
            return ids.to(weight.device), weight
        unique, inverse = torch.unique(ids, return_inverse=True)
        rows = as_tensor(memoryview(self._rows.read(unique.tolist())))
        return inverse, embedding_rows(rows, self._spec.embedding)

    def report_bytes(self) -> None:
        """Emit the bytes that have come in from disk, and from RAM to the GPUs, since the last report."""
        totals = {
            "disk": self._host.bytes_read + self._rows.bytes_read,
            CPU: sum(device.bytes_copied for device in self._devices.values()),
        }
        for tier, total in totals.items():
            if total > self._reported[tier]:
                self._emit(BytesRead(time.monotonic(), tier, total - self._reported[tier]))
                self._reported[tier] = total

    def device_memory(self) -> dict[str, tuple[int, int]]:
        """Bytes used on each GPU, now and at the peak."""
        return {name: device.accelerator.used_bytes() for name, device in self._devices.items()}

    def restart(self) -> None:
        """After a pass that broke off: the next one, of a new prompt, begins with the first unit."""
        for device in self._devices.values():
            device.stop()
        self._host.restart()
        self._start_copiers(prefill=True)

    def close(self) -> None:
        """Stop the copiers and close the embedding's file."""
        for device in self._devices.values():
            device.close()
        self._rows.close()

    def _start_copiers(self, *, prefill: bool) -> None:
        self._prefill_expected = prefill
        for device in self._devices.values():
            device.start(prefill=prefill)

    def _device_name(self, unit: str) -> str:
        return self._placements[unit].computed_on(prefill=self._prefill)

    def _lasting(self, unit: str) -> dict[str, torch.Tensor] | None:
        """The tensors of a unit that stay valid for good, where this kind of pass has such."""
        if self._drafting and (substitute := self._substitutes.get(unit)):
            return substitute
        weights = self._permanent.get(unit)
        return weights if not self._kinds_differ or self._is_home(unit) else None

    def _is_home(self, unit: str) -> bool:
        return self._placements[unit].home == self._device_name(unit)

    def _check_cancelled(self) -> None:
        if self._cancel.is_set():
            raise Interrupted

    def _is_cancelled(self) -> bool:
        """Asked again and again while the computation waits, which is when there is something to tell."""
        self._tell()
        return self._cancel.is_set()

    def _tell(self) -> None:
        """Emit the bytes that have come in and the rings, where they changed; from the computation's thread alone."""
        now_s = time.monotonic()
        if now_s - self._told_s < TELL_S:
            return
        self._told_s = now_s
        self.report_bytes()
        rings = {CPU: self._host.ring()} | {name: device.ring() for name, device in self._devices.items()}
        for name, (ready, in_flight) in rings.items():
            if self._told.get(name) != (ready, in_flight):
                ring = self._plan.ring(name)
                self._emit(RingSample(now_s, name, ring.slots if ring else 0, ready, in_flight))
        self._told = rings

    def _wait_for(self, unit: str) -> dict[str, torch.Tensor]:
        began_s = time.monotonic()
        name = self._device_name(unit)
        if is_gpu(name):
            memory = self._devices[name].acquire(unit)
        else:
            memory = as_tensor(self._host.acquire(unit, self._is_cancelled))
        waited_s = time.monotonic() - began_s
        if waited_s > STALL_S:
            self._emit(Stall(time.monotonic(), unit, waited_s))
        there = self._host.layout(unit)
        meets = None
        if self._prefill:
            meets = self._substitutes.meets(unit)
        else:
            self._substitutes.make(unit, memory, there)
        if self._placements[unit].kept:
            memory, there = self._kept.keep(unit, memory, there)
        weights = unit_views(memory, there, self.dtype(unit), fine=self._fine, meets=meets)
        if self._is_home(unit):
            self._permanent[unit] = weights
        return weights

    def _release(self, unit: str) -> None:
        name = self._device_name(unit)
        if is_gpu(name):
            self._devices[name].release(unit)
        else:
            self._host.release(unit)

    def _embedding_in_memory(self, owner: str) -> torch.Tensor | None:
        """The whole matrix, where it is resident on the device that computes it or lives in RAM and has come in."""
        if self._placements[owner].kept:
            return None  # its rows stay as they are in the file, in the first pass as in the next
        if owner not in self._permanent:
            memory = self._host.peek(owner)
            if memory is None:
                return None
            dtype = compute_dtype(self._spec, CPU)
            views = unit_views(as_tensor(memory), self._host.layout(owner), dtype, fine=self._fine)
            if not self._placements[owner].resident:
                return views[self._spec.embedding.name]
            self._permanent[owner] = views
        return self._permanent[owner][self._spec.embedding.name]


class _Lasting:
    """A unit whose tensors stay, acquired: that has to cost next to nothing, as there are hundreds of them a second."""

    def __init__(self, residency: Residency, unit: str, weights: Mapping[str, torch.Tensor]) -> None:
        self._residency = residency
        self._unit = unit
        self._weights = weights

    def __enter__(self) -> Mapping[str, torch.Tensor]:
        self._residency._check_cancelled()
        return self._weights

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._residency._done(self._unit)
