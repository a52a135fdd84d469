"""The ring: whatever is streamed, kept or broken off, a unit's bytes are those of the file when they are asked for."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tiny_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrun.checkpoint import ModelSpec, TensorSpec, UnitKind, UnitSpec
from llmrun.errors import DeviceError
from llmrun.hardware import direct_io
from llmrun.planner.memory import rings
from llmrun.planner.plan import Placement, Plan, Slots
from llmrun.runtime.host import HostWeights
from llmrun.settings import Workload


@dataclass(frozen=True)
class Case:
    sizes: list[int]  # bytes of each layer's tensor
    gaps: list[int]  # bytes before it in the file
    streamed: list[bool]
    stops: list[int]  # after how many layers each pass is broken off; the number of layers for a whole pass
    slots: int = 2


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 7))
    layers = st.lists(st.integers(1, 3 * 4096), min_size=count, max_size=count)
    gaps = st.lists(st.integers(0, 80_000), min_size=count, max_size=count)
    streamed = st.lists(st.booleans(), min_size=count, max_size=count)
    stops = st.lists(st.integers(0, count), min_size=1, max_size=5)
    return Case(draw(layers), draw(gaps), draw(streamed), draw(stops), draw(st.integers(1, 5)))


def spec_of(case: Case, folder: Path) -> ModelSpec:
    """A model of nothing but layers with one tensor each, in a file of random bytes."""
    units, position = [], 0
    for index, (nbytes, gap) in enumerate(zip(case.sizes, case.gaps, strict=True)):
        position += gap
        tensor = TensorSpec(f"t{index}", "weights.bin", position, nbytes, "F32", (nbytes // 4,))
        units.append(UnitSpec(f"layer {index}", UnitKind.LAYER, index, (tensor,), 0))
        position += nbytes
    (folder / "weights.bin").write_bytes(random.Random(position).randbytes(position))
    return replace(
        tiny_spec.model([]), folder=str(folder), n_layers=len(units), embedding=units[0].tensors[0], units=tuple(units)
    )


def plan_of(spec: ModelSpec, case: Case) -> Plan:
    placements = tuple(
        Placement(unit.name, "disk" if streamed else "cpu", "cpu")
        for unit, streamed in zip(spec.units, case.streamed, strict=True)
    )
    return Plan(spec.name, "literal", Workload(), placements, rings(spec, placements, Slots(host=case.slots)), ())


def never() -> bool:
    return False


def check_unit(host: HostWeights, unit: UnitSpec, whole: bytes) -> None:
    memory = host.acquire(unit.name, never)
    for view, tensor in zip(host.layout(unit.name).views, unit.tensors, strict=True):
        got = bytes(memory[view.buffer_offset : view.buffer_offset + view.nbytes])
        assert got == whole[tensor.offset : tensor.offset + tensor.nbytes], unit.name
    host.release(unit.name)


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([4096, 8192, 32 << 20]))
def test_every_unit_is_what_the_file_says(
    tmp_path_factory: pytest.TempPathFactory, case: Case, block_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    spec = spec_of(case, folder)
    whole = (folder / "weights.bin").read_bytes()
    host = HostWeights(spec, plan_of(spec, case), block_bytes=block_bytes)
    host.start()
    try:
        for stop in case.stops:
            for unit in spec.units[:stop]:
                check_unit(host, unit, whole)
            if stop < len(spec.units):
                host.restart()
    finally:
        host.close()


def test_the_next_pass_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    """Prefetch does not stop at the last layer: with the ring free, the first layers of the next token come in."""
    case = Case([4096] * 5, [0] * 5, [True] * 5, [])
    spec = spec_of(case, tmp_path)
    host = HostWeights(spec, plan_of(spec, case))
    host.start()
    try:
        whole = (tmp_path / "weights.bin").read_bytes()
        for unit in spec.units:
            check_unit(host, unit, whole)
        host.acquire("layer 0", never)  # comes without a release, so it was begun by the readers alone
        host.acquire("layer 1", never)
        assert host.bytes_read == 7 * 4096
    finally:
        host.close()


def test_resident_units_come_in_while_the_ring_is_full(tmp_path: Path) -> None:
    """Nobody acquires anything here, and yet all resident layers behind the streamed ones are read."""
    case = Case([4096] * 8, [0] * 8, [True, True, True, True, False, False, False, False], [])
    spec = spec_of(case, tmp_path)
    host = HostWeights(spec, plan_of(spec, case))
    host.start()
    try:
        for unit in spec.units[4:]:
            host.acquire(unit.name, never)
        assert all(host.peek(unit.name) is not None for unit in spec.units[4:])
        assert host.peek("layer 0") is None  # streamed: not for keeping
    finally:
        host.close()


@pytest.mark.parametrize("streamed", [True, False])
def test_a_unit_whose_read_failed_is_read_again(tmp_path: Path, streamed: bool) -> None:
    """All of it, also where it is to stay and some of it had come in before the file ended."""
    case = Case([3 * 4096, 4096], [0, 0], [streamed, False], [])
    spec = spec_of(case, tmp_path)
    file = tmp_path / "weights.bin"
    whole = file.read_bytes()
    host = HostWeights(spec, plan_of(spec, case), block_bytes=4096)
    os.truncate(file, 4096)
    host.start()
    try:
        with pytest.raises(DeviceError, match="offset 4,096"):
            host.acquire("layer 0", never)
        assert host.failed
        file.write_bytes(whole)
        host.restart()
        for unit in spec.units:
            check_unit(host, unit, whole)
    finally:
        host.close()


def test_a_broken_plan_of_memory_is_seen(tmp_path: Path) -> None:
    """The check itself sees wrong bytes: a file that changes behind the reader's back."""
    case = Case([8192], [0], [False], [])
    spec = spec_of(case, tmp_path)
    whole = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(bytes(8192))
    host = HostWeights(spec, plan_of(spec, case))
    host.start()
    try:
        with pytest.raises(AssertionError):
            check_unit(host, spec.units[0], whole)
    finally:
        host.close()


def test_blocks_are_a_multiple_of_what_direct_io_asks_for() -> None:
    assert direct_io.BLOCK_BYTES % 4096 == 0
