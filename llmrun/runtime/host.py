"""The weights in RAM: resident ones, and a ring of slots that readers fill ahead of the computation.

Readers take the units in execution order and, after the last one, begin again with the first: the pass of the next
token is being read while this one is computed. In the first pass they bring the resident units too, each into its own
memory; later passes read only what is streamed. Needs no torch, so that reading can begin while torch is imported.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from llmrun.checkpoint.layout import UnitLayout, layout
from llmrun.checkpoint.spec import ModelSpec, UnitSpec
from llmrun.errors import Interrupted, LlmrunError
from llmrun.hardware.buffer import allocate
from llmrun.hardware.direct_io import BLOCK_BYTES, READERS, WeightFile
from llmrun.planner.memory import passes_host_ring
from llmrun.planner.plan import CPU, Plan

POLL_S = 0.1
"""How often a waiting thread looks whether it was told to stop."""


@dataclass(frozen=True)
class _Block:
    file: str
    file_offset: int
    target: memoryview


@dataclass
class _Fetch:
    """One unit on its way in, in use, or resident."""

    unit: UnitSpec
    memory: memoryview
    slot: int | None  # None: resident, in memory of its own
    blocks: deque[_Block]
    pending: int = field(init=False)
    failed: bool = False
    abandoned: bool = False

    def __post_init__(self) -> None:
        self.pending = len(self.blocks)


class HostWeights:
    """Brings units into RAM; ``acquire`` and ``release`` may be called from several threads.

    Memory: the resident units and the ring's slots, allocated here once, touched as they are read.
    """

    def __init__(self, spec: ModelSpec, plan: Plan, *, block_bytes: int = BLOCK_BYTES) -> None:
        self.bytes_read = 0
        self._block_bytes = block_bytes
        self._spec = spec
        self._plan = plan
        self._layouts = {unit.name: layout(unit) for unit in spec.units}
        self._resident = _resident_memory(spec, plan, self._layouts)
        ring = plan.ring(CPU)
        self._slots = _cut(allocate(ring.nbytes), ring.slots) if ring else []
        self._free = list(range(len(self._slots)))
        self._changed = threading.Condition()
        self._fetches: dict[str, deque[_Fetch]] = {unit.name: deque() for unit in spec.units}
        self._delivered: set[str] = set()  # units that need no further read
        self._order = self._schedule()
        self._next: UnitSpec | None = next(self._order, None)
        self._current: _Fetch | None = None
        self._failure: LlmrunError | None = None
        self._closed = False
        self._in_flight = 0
        self._at_once = 1
        self._files = {file: WeightFile(spec.path(file)) for file in _files(spec)}
        self._readers = [threading.Thread(target=self._read, name=f"reader {i}", daemon=True) for i in range(READERS)]

    def start(self) -> None:
        """Begin to read, one request at a time: the imports that go on meanwhile need the disk as well."""
        for reader in self._readers:
            reader.start()

    def speed_up(self) -> None:
        """Nothing else needs the disk now."""
        with self._changed:
            self._at_once = READERS
            self._changed.notify_all()

    def layout(self, unit: str) -> UnitLayout:
        """How the bytes of a unit lie in the memory that ``acquire`` gives."""
        return self._layouts[unit]

    def memories(self, units: Iterable[str]) -> list[memoryview]:
        """The memory that these units are or will be in: their own, and every slot if any of them is streamed."""
        units = list(units)
        own = [self._resident[unit] for unit in units if unit in self._resident]
        return own + (self._slots if len(own) < len(units) else [])

    def acquire(self, unit: str, is_cancelled: Callable[[], bool]) -> memoryview:
        """The bytes of a unit, once they are all there; valid until ``release``.

        Raises:
            Interrupted: ``is_cancelled`` said so while waiting.
            LlmrunError: a read failed.
        """
        with self._changed:
            while True:
                if self._failure:  # looked at first: a fetch that failed has nothing pending either
                    raise self._failure
                if is_cancelled():
                    raise Interrupted
                if fetch := self._ready(unit):
                    return fetch.memory
                self._changed.wait(POLL_S)

    def peek(self, unit: str) -> memoryview | None:
        """The bytes of a unit that lives in RAM, if they have come in already."""
        with self._changed:
            fetch = self._ready(unit) if unit in self._resident else None
            return fetch.memory if fetch and not self._failure else None

    def ring(self) -> tuple[int, tuple[str, ...]]:
        """How many slots hold a whole unit, and the units on their way in, resident ones too."""
        with self._changed:
            fetches = [fetch for queue in self._fetches.values() for fetch in queue]
            ready = sum(fetch.slot is not None and fetch.pending == 0 for fetch in fetches)
            return ready, tuple(fetch.unit.name for fetch in fetches if fetch.pending)

    def release(self, unit: str) -> None:
        """The bytes of a unit are no longer needed in this pass."""
        with self._changed:
            if unit not in self._resident:
                fetch = self._fetches[unit].popleft()
                self._recycle(fetch)
                if self._plan.placement(unit).comes_once:
                    self._delivered.add(unit)

    @property
    def failed(self) -> bool:
        """Whether a read failed since the last restart, perhaps one that no pass has asked for yet."""
        return self._failure is not None

    def restart(self) -> None:
        """Forget how far a broken-off pass came; the next one begins with the first unit."""
        with self._changed:
            self._failure = None
            for unit, fetches in self._fetches.items():
                for fetch in fetches:
                    if unit not in self._resident or fetch.failed:
                        self._abandon(fetch)
                self._fetches[unit] = deque(fetch for fetch in fetches if not fetch.abandoned)
            if self._current and self._current.abandoned:
                self._current = None
            self._order = self._schedule()
            self._next = next(self._order, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the readers and close the files; waits for the requests in flight."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for reader in self._readers:
            if reader.ident:
                reader.join()
        for file in self._files.values():
            file.close()

    def _schedule(self) -> Iterator[UnitSpec]:
        """The units to read, pass after pass, for as long as passes need any."""
        while True:
            again = False
            for unit in self._spec.units:
                placement = self._plan.placement(unit.name)
                wanted = unit.name in self._resident or passes_host_ring(placement, unit)
                if wanted and unit.name not in self._delivered and not self._is_under_way(unit.name):
                    again = True
                    yield unit
                again = again or (passes_host_ring(placement, unit) and not placement.comes_once)
            if not again:
                return

    def _is_under_way(self, unit: str) -> bool:
        """Whether a fetch is running or done that is needed once: of a resident unit, or of one that goes elsewhere."""
        once = unit in self._resident or self._plan.placement(unit).comes_once
        return once and bool(self._fetches[unit])

    def _ready(self, unit: str) -> _Fetch | None:
        fetches = self._fetches[unit]
        return fetches[0] if fetches and fetches[0].pending == 0 else None

    def _abandon(self, fetch: _Fetch) -> None:
        """Make no more requests for it; its slot is free once those in flight are done."""
        fetch.abandoned = True
        fetch.pending -= len(fetch.blocks)
        fetch.blocks.clear()
        self._recycle(fetch)

    def _recycle(self, fetch: _Fetch) -> None:
        """Give the slot of a fetch back once nothing is being read into it."""
        if fetch.slot is not None and fetch.pending == 0:
            self._free.append(fetch.slot)
            self._changed.notify_all()

    def _read(self) -> None:
        """A reader thread: one request after the other, until closed."""
        while work := self._take():
            fetch, block = work
            failure, count = None, 0
            try:
                count = self._files[block.file].read(block.target, block.file_offset)
            except LlmrunError as error:
                failure = error
            self._finish(fetch, count, failure)

    def _take(self) -> tuple[_Fetch, _Block] | None:
        with self._changed:
            while not self._closed:
                if self._failure is None and self._in_flight < self._at_once and (fetch := self._open_fetch()):
                    self._in_flight += 1
                    return fetch, fetch.blocks.popleft()
                self._changed.wait()
            return None

    def _open_fetch(self) -> _Fetch | None:
        """The fetch that has requests left to make; a new one as soon as there is memory for the next unit.

        While the ring is full, resident units further on come in: they have memory of their own.
        """
        if self._current and self._current.blocks:
            return self._current
        if self._next is None:
            return None
        if self._next.name in self._resident or self._free:
            fetch = self._begin(self._next)
            self._next = next(self._order, None)  # which depends on what has begun
            return fetch
        ahead = next((name for name in self._resident if not self._fetches[name]), None)
        return self._begin(self._spec.unit(ahead)) if ahead else None

    def _begin(self, unit: UnitSpec) -> _Fetch:
        memory, slot = self._resident.get(unit.name), None
        if memory is None:
            slot = self._free.pop(0)
            memory = self._slots[slot]
        self._current = _Fetch(unit, memory, slot, self._blocks(unit, memory))
        self._fetches[unit.name].append(self._current)
        return self._current

    def _blocks(self, unit: UnitSpec, memory: memoryview) -> deque[_Block]:
        blocks: deque[_Block] = deque()
        for extent in self._layouts[unit.name].extents:
            for done in range(0, extent.nbytes, self._block_bytes):
                begin = extent.buffer_offset + done
                end = extent.buffer_offset + min(done + self._block_bytes, extent.nbytes)
                blocks.append(_Block(extent.file, extent.file_offset + done, memory[begin:end]))
        return blocks

    def _finish(self, fetch: _Fetch, count: int, failure: LlmrunError | None) -> None:
        with self._changed:
            self.bytes_read += count
            self._in_flight -= 1
            fetch.pending -= 1
            if fetch.abandoned:
                self._recycle(fetch)
            elif failure:
                fetch.failed = True
                self._failure = failure
            self._changed.notify_all()


def _resident_memory(spec: ModelSpec, plan: Plan, layouts: dict[str, UnitLayout]) -> dict[str, memoryview]:
    """One region for all units that live in RAM as they are, so that huge pages cost no rounding for each."""
    units = [p.unit for p in plan.placements if p.home == CPU and not p.comes_once and spec.unit(p.unit).tensors]
    region = allocate(sum(layouts[unit].nbytes for unit in units))
    memory, offset = {}, 0
    for unit in units:
        memory[unit] = region[offset : offset + layouts[unit].nbytes]
        offset += layouts[unit].nbytes
    return memory


def _cut(region: memoryview, count: int) -> list[memoryview]:
    nbytes = region.nbytes // count
    return [region[i * nbytes : (i + 1) * nbytes] for i in range(count)]


def _files(spec: ModelSpec) -> set[str]:
    return {tensor.file for unit in spec.units for tensor in unit.tensors} | {spec.embedding.file}
