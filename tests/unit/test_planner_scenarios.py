"""Hosts that are faster or slower than measured."""

from dataclasses import replace

import pytest
from hosts import SPEEDS
from tiny_spec import model

from llmrun.hardware.speeds import Spread
from llmrun.planner.problem import Objective, make_problem
from llmrun.planner.scenarios import Bandwidth, scenarios, slower
from llmrun.planner.simulation.cost import copy_seconds, read_seconds, weight_bytes_per_s
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

NUMBERS = model([100 * MIB] * 4)
SPEC = replace(NUMBERS, units=tuple(replace(unit, flops_per_token=unit.nbytes) for unit in NUMBERS.units))
LAYER = SPEC.unit("layer 0")


def test_the_first_is_the_host_as_measured_and_the_others_are_the_corners_of_its_spread():
    nominal, *corners = scenarios(SPEEDS)
    assert nominal == SPEEDS
    disk, memory = SPEEDS.disk.bytes_per_s, SPEEDS.device("cpu").memory_bytes_per_s
    assert [(one.disk.bytes_per_s.p50, one.device("cpu").memory_bytes_per_s.p50) for one in corners] == [
        (pytest.approx(disk.p10), pytest.approx(memory.p10)),
        (pytest.approx(disk.p10), pytest.approx(memory.p90)),
        (pytest.approx(disk.p90), pytest.approx(memory.p10)),
        (pytest.approx(disk.p90), pytest.approx(memory.p90)),
    ]


def test_all_that_a_cost_looks_at_is_scaled():
    slow = scenarios(SPEEDS)[1]
    cpu, gpu = SPEEDS.device("cpu"), SPEEDS.device("gpu:0")
    assert read_seconds(LAYER, slow) == pytest.approx(read_seconds(LAYER, SPEEDS) * 2)  # p50 / p10 of the disk
    assert slow.disk.single_bytes_per_s == pytest.approx(SPEEDS.disk.single_bytes_per_s / 2)
    for tokens in (1, 512):
        scaled = weight_bytes_per_s(slow.device("cpu"), "BF16", tokens)
        assert scaled == pytest.approx(weight_bytes_per_s(cpu, "BF16", tokens) * 2 / 3)
    assert slow.device("cpu").kv_bytes_per_s == pytest.approx(cpu.kv_bytes_per_s * 2 / 3)
    latency_s = gpu.link.latency_s
    moving_s = copy_seconds(LAYER, SPEEDS, "gpu:0") - latency_s
    assert copy_seconds(LAYER, slow, "gpu:0") == pytest.approx(moving_s * 1.1 + latency_s)


def test_a_host_without_a_spread_is_one_scenario():
    def steady(spread: Spread) -> Spread:
        return Spread(spread.p50, spread.p50, spread.p50)

    devices = tuple(
        replace(
            device,
            memory_bytes_per_s=steady(device.memory_bytes_per_s),
            link=device.link
            and replace(device.link, h2d_pinned_bytes_per_s=steady(device.link.h2d_pinned_bytes_per_s)),
        )
        for device in SPEEDS.devices
    )
    disk = replace(SPEEDS.disk, bytes_per_s=steady(SPEEDS.disk.bytes_per_s))
    assert len(scenarios(replace(SPEEDS, devices=tuple(devices), disk=disk))) == 1
    assert len(scenarios(replace(SPEEDS, devices=tuple(devices)))) == 3


@pytest.mark.parametrize("which", Bandwidth)
def test_slower_by_a_factor_and_back_is_as_measured(which):
    off = slower(SPEEDS, {which: 1.5})
    back = slower(off, {which: 1 / 1.5})
    assert off != SPEEDS
    assert back.disk.bytes_per_s.p50 == pytest.approx(SPEEDS.disk.bytes_per_s.p50)
    assert (off.disk != SPEEDS.disk) == (which is Bandwidth.DISK)
    for one, measured, scaled in zip(back.devices, SPEEDS.devices, off.devices, strict=True):
        assert one.memory_bytes_per_s.p50 == pytest.approx(measured.memory_bytes_per_s.p50)
        assert (scaled.weights != measured.weights) == (which is Bandwidth.MEMORY)
        assert (scaled.link != measured.link) == (which is Bandwidth.LINK and measured.link is not None)


def test_on_a_slower_host_nothing_gets_faster():
    slow = slower(SPEEDS, dict.fromkeys(Bandwidth, 1.5))
    budget = Budget(4 * GIB, {"gpu:0": 4 * GIB})
    before, after = (make_problem(SPEC, Workload(), budget, (one,), Objective.TOTAL).costs[0] for one in (SPEEDS, slow))
    for one, other in ((before.prefill, after.prefill), (before.decode, after.decode)):
        assert (other.compute_s >= one.compute_s).all()
        assert (other.compute_s[:4] > one.compute_s[:4]).all()
        assert (other.copy_s >= one.copy_s).all()
        assert (other.hop_s >= one.hop_s).all()
    assert (after.read_s > before.read_s).all()


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_is_a_positive_number(factor):
    with pytest.raises(ValueError, match="positive"):
        slower(SPEEDS, {Bandwidth.DISK: factor})
