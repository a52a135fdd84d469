"""What a run tells of its rings, and that it goes on telling while it waits."""

import threading

import pytest
from placing import emulated, opened, plan_of
from tiny_model import FAMILIES, save, some_tokens

from llmrun.checkpoint import read_spec
from llmrun.events import BytesRead, LayerDone, RingSample
from llmrun.runtime.host import HostWeights
from llmrun.runtime.residency import TELL_S, Residency


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return read_spec(save(FAMILIES["llama"].build(), tmp_path_factory.mktemp("llama")))


def rings_of(spec, letters):
    """The ring samples of a prefill and two tokens, each device's apart."""
    events = []
    with opened(spec, plan_of(spec, letters), emulated, emit=events.append) as (forward, _, _):
        forward.prefill(some_tokens(5))
        for token in (3, 4):
            forward.decode(token)
    names = {unit.name for unit in spec.units}
    samples = [event for event in events if isinstance(event, RingSample)]
    assert samples
    for sample in samples:
        assert 0 <= sample.ready_slots <= sample.slots
        assert set(sample.in_flight) <= names
    return {sample.device: sample for sample in samples}, events


def test_rings_of_ram_and_of_a_gpu(spec):
    rings, _ = rings_of(spec, "d0xxdR0aR")
    assert {device: ring.slots for device, ring in rings.items()} == {"cpu": 2, "gpu:0": 2}


def test_without_a_ring_there_are_no_slots(spec):
    rings, _ = rings_of(spec, "RRRRRRRRR")
    assert rings["cpu"].slots == 0


def test_a_sample_comes_with_the_unit_that_is_done_at_that_time(spec):
    _, events = rings_of(spec, "dRddddddd")
    at = next(index for index, event in enumerate(events) if isinstance(event, RingSample))
    assert any(isinstance(event, LayerDone) for event in events[at:])


def test_the_ring_as_the_readers_fill_it(spec):
    host = HostWeights(spec, plan_of(spec, "dRddddddd"))
    assert host.ring() == (0, ())
    host.start()
    try:
        for unit in ("rest", "layer 0", "layer 1"):
            host.acquire(unit, lambda: False)
        assert host.ring() == (2, ())  # both slots are full and nothing else has memory to come into
        host.release("layer 0")
        host.acquire("layer 2", lambda: False)
        assert host.ring() == (2, ())
    finally:
        host.close()


def test_it_tells_while_it_waits_for_a_unit(spec):
    """The readers begin late: until then the computation has nothing to do but to say what is missing."""
    plan, events, told = plan_of(spec, "dRddddddd"), [], threading.Event()

    def emit(event):
        events.append(event)
        told.set()

    host = HostWeights(spec, plan)
    residency = Residency(spec, plan, host, {}, None, emit, threading.Event())
    try:
        waiting = threading.Thread(target=lambda: residency._wait_for("layer 0"))
        waiting.start()
        assert told.wait(100 * TELL_S)
        assert isinstance(events[0], RingSample | BytesRead)
        assert not any(isinstance(event, LayerDone) for event in events)
        host.start()
        waiting.join()
    finally:
        residency.close()
        host.close()
