"""What would help, and planners beside each other: which questions are asked, and that they are asked rightly."""

from dataclasses import replace

import pytest
from hosts import GPU_SPEED, SPEEDS
from shapes import llama_8b, mixture_of_experts, smollm2_135m
from tiny_spec import model

from llmrun.checkpoint.layout import layout
from llmrun.errors import PlanError, UsageError
from llmrun.planner.compare import compare
from llmrun.planner.plan import Busy, Certificate, Plan, Prediction
from llmrun.planner.simulation.cost import weight_bytes_per_s
from llmrun.planner.what_if import Situation, changes, halved, what_if
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

SPEC = model([100 * MIB] * 4)
NOW = Situation(SPEC, Workload(), Budget(4 * GIB, {"gpu:0": 6 * GIB, "gpu:1": 7 * GIB}), SPEEDS)


def by_name(situation: Situation) -> dict[str, Situation]:
    return {change.name: change.situation for change in changes(situation)}


def test_one_thing_changes_at_a_time():
    then = by_name(NOW)
    assert list(then) == [
        "ram_plus_8_gib",
        "bigger_gpu",
        "disk_twice_as_fast",
        "half_the_bytes_per_weight",
        "half_the_context",
    ]
    assert then["ram_plus_8_gib"] == replace(NOW, budget=Budget(12 * GIB, NOW.budget.vram_bytes))
    assert then["half_the_context"] == replace(NOW, workload=Workload(context_tokens=2048))
    faster = then["disk_twice_as_fast"]
    assert faster == replace(NOW, speeds=replace(SPEEDS, disk=faster.speeds.disk))
    assert faster.speeds.disk.bytes_per_s.p50 == 2 * SPEEDS.disk.bytes_per_s.p50
    assert faster.speeds.disk.single_bytes_per_s == 2 * SPEEDS.disk.single_bytes_per_s


@pytest.mark.parametrize(
    ("have_gib", "next_gib"),
    [(3.5, 6), (5.4, 8), (6.8, 12), (7.6, 12), (10.4, 16), (20.5, 32), (22.8, 32), (30.4, 48), (40.0, 80)],
)
def test_the_next_bigger_gpu_is_really_bigger(have_gib, next_gib):
    now = replace(NOW, budget=Budget(GIB, {"gpu:0": int(have_gib * GIB)}))
    change = next(change for change in changes(now) if change.name == "bigger_gpu")
    assert change.text == f"gpu:0 with {next_gib} GiB"
    bytes_then = change.situation.budget.vram_bytes["gpu:0"]
    assert have_gib * GIB < bytes_then < next_gib * GIB


def test_the_smallest_of_the_gpus_is_the_one_to_replace():
    assert by_name(NOW)["bigger_gpu"].budget.vram_bytes.keys() == {"gpu:0", "gpu:1"}
    assert by_name(NOW)["bigger_gpu"].budget.vram_bytes["gpu:1"] == 7 * GIB


@pytest.mark.parametrize("vram_bytes", [{}, {"gpu:0": 0}, {"gpu:0": 80 * GIB}])
def test_no_bigger_gpu_where_there_is_none_or_none_is_used_or_none_is_bigger(vram_bytes):
    assert "bigger_gpu" not in by_name(replace(NOW, budget=Budget(GIB, vram_bytes)))


def test_the_context_is_not_cut_below_the_request():
    assert "half_the_context" not in by_name(replace(NOW, workload=Workload(1024, prompt_tokens=512, new_tokens=1)))
    assert "half_the_context" in by_name(replace(NOW, workload=Workload(1024, prompt_tokens=256, new_tokens=256)))


@pytest.mark.parametrize("make", [smollm2_135m, llama_8b, mixture_of_experts])
def test_half_the_bytes_per_weight(make):
    spec = make()
    half = halved(spec)
    assert half.nbytes == sum(unit.nbytes // 2 for unit in spec.units)
    assert half.n_params == spec.n_params
    assert half.kv_bytes_per_token == spec.kv_bytes_per_token
    assert half.embedding.nbytes == spec.embedding.nbytes // 2
    for before, after in zip(spec.units, half.units, strict=True):
        assert [view.nbytes * 2 for view in layout(after).views] == [view.nbytes for view in layout(before).views]
        assert layout(after).nbytes <= layout(before).nbytes / 2 + 4096 * len(layout(after).extents)
        assert len(layout(after).extents) <= len(layout(before).extents)


def test_halved_weights_take_half_the_time_from_memory_and_the_same_for_flops():
    speeds = by_name(NOW)["half_the_bytes_per_weight"].speeds

    def seconds(device, nbytes, tokens):
        return nbytes / weight_bytes_per_s(device, "BF16", tokens)

    for before, after in zip(SPEEDS.devices, speeds.devices, strict=True):
        assert seconds(after, GIB // 2, 1) == pytest.approx(seconds(before, GIB, 1) / 2)
        assert seconds(after, GIB // 2, 512) == pytest.approx(seconds(before, GIB, 512))
        assert seconds(after, GIB // 2, 4096) == pytest.approx(seconds(before, GIB, 4096))
    assert speeds.device("gpu:0").link == GPU_SPEED.link


def prediction(tpot_s: float) -> Prediction:
    return Prediction(1.0, 1.0, 1.0, tpot_s, {}, (Busy("cpu", tpot_s),), {})


def plan(planner: str, seconds: float) -> Plan:
    certificate = Certificate("total", seconds, 1.0, 0, 1)
    return Plan("m", planner, Workload(), (), (), (), prediction=prediction(1 / seconds), certificate=certificate)


def test_a_change_without_a_plan_is_told_so():
    def replan(now: Situation) -> Plan:
        if now.budget != NOW.budget:
            raise PlanError("plan-over-budget", "nothing fits")
        return plan("aco", 2.0)

    found = {one.change.name: one.prediction for one in what_if(NOW, replan)}
    assert found["ram_plus_8_gib"] is found["bigger_gpu"] is None
    assert found["disk_twice_as_fast"] == prediction(0.5)


def test_planners_are_sorted_and_those_that_do_not_run_give_a_reason():
    def make(name: str) -> Plan:
        if name == "exhaustive":
            raise UsageError("too-large", "too many placements")
        return plan(name, {"aco": 2.0, "greedy": 3.0, "even": 2.5}[name])

    found = compare(["greedy", "exhaustive", "even", "aco"], make)
    assert [one.planner for one in found] == ["aco", "even", "greedy", "exhaustive"]
    assert [one.reason for one in found] == ["", "", "", "too many placements"]
    assert [one.plan is None for one in found] == [False, False, False, True]
