"""A profile becomes JSON and itself again, whatever its figures; broken JSON is an error, never a crash."""

import string
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from llmrun.errors import UsageError
from llmrun.hardware import Cpu, Disk, Gpu, HardwareProfile, MemoryLimit, to_json
from llmrun.hardware.hardware_file import parse_hardware
from llmrun.hardware.speeds import (
    DeviceSpeed,
    DiskSpeed,
    LinkSpeed,
    ReadShape,
    Speeds,
    Spread,
    ThreadSpeed,
    WeightSpeed,
)

names = st.text(max_size=20)
counts = st.integers(1, 512)
amounts = st.integers(1, 10**15)
rates = st.floats(1.0, 1e15)
seconds = st.floats(1e-14, 3600)
spreads = st.lists(rates, min_size=3, max_size=3).map(lambda values: Spread(*sorted(values)))


@st.composite
def curves(draw):
    tokens = (1, *sorted(draw(st.sets(st.integers(2, 4096), max_size=5))))
    figures = draw(st.lists(rates, min_size=len(tokens), max_size=len(tokens)))
    return WeightSpeed(draw(st.sampled_from(["BF16", "F16", "F32"])), tokens, tuple(figures))


def devices(name):
    many = st.lists(curves(), min_size=1, max_size=3).map(tuple)
    threads = st.lists(st.builds(ThreadSpeed, counts, rates), max_size=2).map(tuple)
    links = st.builds(LinkSpeed, spreads, rates, rates, rates, seconds)
    link = st.none() | links if name == "cpu" else links
    return st.builds(
        DeviceSpeed, st.just(name), names, spreads, many, rates, rates, seconds, seconds, threads, link,
        st.none() | rates,
    )  # fmt: skip


@st.composite
def profiles(draw):
    n_gpus = draw(st.integers(0, 2))
    gpus = [draw(st.builds(Gpu, st.just(f"gpu:{k}"), names, names, amounts, amounts, names)) for k in range(n_gpus)]
    measured = tuple(draw(devices(name)) for name in ("cpu", *(gpu.device for gpu in gpus)))
    shapes = st.lists(st.builds(ReadShape, amounts, counts, spreads), max_size=2).map(tuple)
    disk = draw(st.builds(DiskSpeed, spreads, rates, seconds, shapes))
    notes = st.lists(names, max_size=2).map(tuple)
    speeds = st.builds(
        Speeds, names, names, st.just(disk), st.just(measured), st.floats(1, 3), seconds, seconds, notes, st.booleans()
    )
    flags = st.none() | st.booleans()
    return HardwareProfile(
        draw(st.builds(Cpu, names, counts, counts)),
        tuple(draw(st.lists(st.builds(MemoryLimit, names, amounts, st.integers(0, 10**15)), min_size=1, max_size=2))),
        tuple(gpus),
        draw(st.none() | st.builds(Disk, names, names, names, names, amounts, amounts, flags, flags)),
        draw(notes),
        draw(st.none() | speeds),
    )


@given(profiles())
@settings(max_examples=60, deadline=None)
def test_a_profile_is_read_as_it_was_written(profile):
    assert parse_hardware(to_json(profile), "a file") == profile


@given(st.data(), profiles())
@settings(max_examples=60, deadline=None)
def test_damage_is_an_error_or_another_good_profile_but_no_crash(data, profile):
    text = to_json(profile)
    place = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:place] + data.draw(st.sampled_from(string.printable)) + text[place + data.draw(st.integers(0, 3)) :]
    with suppress(UsageError):
        assert isinstance(parse_hardware(damaged, "a file"), HardwareProfile)
