"""``make_plan``: what is in a plan, what is refused and with which hints, and what the embedding has to pay."""

import json
import re
from dataclasses import asdict, replace

import pytest
from hosts import SPEEDS, speeds
from tiny_spec import letters, model

from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.errors import PlanError, UsageError
from llmrun.planner import DEFAULT_PLANNER, PLANNERS, make_plan
from llmrun.planner.memory import CUDA_CONTEXT_BYTES, process_bytes, workspace_bytes
from llmrun.planner.plan import Placement
from llmrun.planner.plan_file import plan_to_json
from llmrun.planner.problem import MIN_EVALUATIONS, Objective
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

SPEC = model([100 * MIB] * 6, 40 * MIB)
WORK = Workload(context_tokens=1024)
KV_BYTES = 6 * 1024 * 1024
REST_BYTES = 4096
RAM_BESIDE = process_bytes(SPEC, WORK) + workspace_bytes(SPEC, WORK) + REST_BYTES  # what no placement can send away
VRAM_BESIDE = CUDA_CONTEXT_BYTES + workspace_bytes(SPEC, WORK) + REST_BYTES
LEANEST_BYTES = RAM_BESIDE + KV_BYTES + 100 * MIB  # one slot


def planned(ram_bytes, vram_bytes=None, spec=SPEC, work=WORK, planner="even", **options):
    return make_plan(spec, work, Budget(ram_bytes, vram_bytes or {}), speeds(2), planner=planner, **options)


def refusal(ram_bytes, vram_bytes=None, **options):
    with pytest.raises(PlanError) as refused:
        planned(ram_bytes, vram_bytes, **options)
    assert refused.value.reference == "plan-over-budget"
    return refused.value


def test_a_plan_says_how_it_was_made():
    plan = planned(RAM_BESIDE + KV_BYTES + 440 * MIB, planner="greedy", objective=Objective.TPOT, seed=7)
    assert (plan.model, plan.planner, plan.workload) == ("numbers", "greedy", WORK)
    assert (plan.hardware, plan.fingerprint) == (SPEEDS.host, fingerprint(SPEC))
    assert (plan.certificate.objective, plan.certificate.seed, plan.certificate.evaluations) == ("tpot", 7, 0)
    assert plan.placement("layer 0") == Placement("layer 0", "cpu", "cpu")
    assert plan.certificate.gap >= 0
    with pytest.raises(KeyError):
        plan.placement("layer 6")


def test_the_objective_is_what_the_prediction_shows_where_nothing_varies():
    steady = replace(SPEEDS.disk, bytes_per_s=replace(SPEEDS.disk.bytes_per_s, p10=2e9, p90=2e9))
    memory = replace(SPEEDS.devices[0].memory_bytes_per_s, p10=3e10, p90=3e10)
    alone = replace(SPEEDS, disk=steady, devices=(replace(SPEEDS.devices[0], memory_bytes_per_s=memory),))
    budget = Budget(RAM_BESIDE + KV_BYTES + 300 * MIB)
    of = {goal: make_plan(SPEC, WORK, budget, alone, planner="greedy", objective=goal) for goal in Objective}
    seen = of[Objective.TOTAL].prediction
    after_s = (WORK.new_tokens - 1) * seen.tpot_s
    expected = {
        "total": seen.ttft_s + after_s,
        "ttft": seen.ttft_s,
        "tpot": seen.tpot_s,
        "throughput": seen.warm_ttft_s + after_s,
    }
    assert {goal.value: plan.certificate.seconds for goal, plan in of.items()} == pytest.approx(expected)


def test_ants_are_the_default_and_take_no_more_effort_than_they_are_given():
    assert DEFAULT_PLANNER == "aco"
    plan = make_plan(SPEC, WORK, Budget(RAM_BESIDE + KV_BYTES + 440 * MIB), SPEEDS, planner_s=1e-9)
    assert plan.planner == "aco"
    assert plan.certificate.evaluations <= MIN_EVALUATIONS


@pytest.mark.parametrize("planner", sorted(set(PLANNERS) - {"nsga2"}))
def test_where_all_fits_every_planner_keeps_all(planner):
    spec = model([100 * MIB] * 3)
    plan = planned(4 * GIB, spec=spec, planner=planner)
    assert letters(plan.placements) == "RRRRRR"
    assert plan.rings == ()
    assert plan.certificate.gap == pytest.approx(0, abs=1e-3)


def test_ants_find_the_best_of_a_small_problem_and_greedy_does_not():
    found = {name: planned(RAM_BESIDE + KV_BYTES + 440 * MIB, planner=name) for name in ("aco", "exhaustive", "greedy")}
    seconds = {name: plan.certificate.seconds for name, plan in found.items()}
    assert seconds["exhaustive"] == pytest.approx(seconds["aco"], rel=1e-3)
    assert seconds["aco"] < seconds["greedy"]


def test_a_gpu_that_was_not_measured_is_left_alone():
    budget = Budget(2 * GIB, {"gpu:0": 4 * GIB, "gpu:7": 4 * GIB})
    for planner in ("aco", "greedy", "milp"):
        plan = make_plan(SPEC, WORK, budget, speeds(1), planner=planner, planner_s=0.01)
        assert plan.gpus == ("gpu:0",)
        assert [(memory.device, memory.nbytes > 0) for memory in plan.memory][2] == ("gpu:7", False)
        assert make_plan(SPEC, WORK, budget, speeds(0), planner=planner, planner_s=0.01).gpus == ()


def test_a_gpu_of_which_nothing_may_be_used_is_left_alone():
    assert planned(2 * GIB, {"gpu:0": 0}).gpus == ()
    assert planned(2 * GIB, {"gpu:0": 0, "gpu:1": 2 * GIB}, planner="aco", planner_s=0.01).gpus == ("gpu:1",)


def test_a_gpu_too_small_to_help_is_left_alone():
    assert planned(2 * GIB, {"gpu:0": 100 * MIB}).gpus == ()
    assert planned(2 * GIB, {"gpu:0": 100 * MIB}, planner="aco", planner_s=0.01).gpus == ()


def test_a_plan_becomes_json_values():
    plan = asdict(planned(2 * GIB, {"gpu:0": 2 * GIB}))
    assert plan["schema"] == 4
    rest = {"unit": "rest", "home": "gpu:0", "device": "gpu:0"}
    rest |= dict.fromkeys(["prompt_device", "kept", "substitute"])
    assert plan["placements"][1] == rest
    assert json.loads(plan_to_json(planned(2 * GIB, {"gpu:0": 2 * GIB})))["certificate"] == plan["certificate"]


class TestEmbedding:
    """40 MiB are read in 21 ms; a row takes 0.1 ms, so 210 tokens take as long."""

    ROOM = RAM_BESIDE + KV_BYTES + 680 * MIB

    @staticmethod
    def home(ram_bytes, tokens, spec=SPEC, batch=1):
        work = Workload(context_tokens=1024, prompt_tokens=tokens // 2, new_tokens=tokens - tokens // 2, batch=batch)
        return planned(ram_bytes, spec=spec, work=work).placement("embedding").home

    def test_it_is_kept_where_there_is_room(self):
        assert self.home(self.ROOM, 1000) == "cpu"
        assert self.home(self.ROOM - 1, 1000) == "disk"

    def test_it_is_kept_where_reading_it_pays(self):
        assert self.home(2 * GIB, 209) == "disk"
        assert self.home(2 * GIB, 210) == "cpu"
        assert self.home(2 * GIB, 105, batch=2) == "cpu"

    def test_rows_of_a_large_one_are_read_one_by_one(self):
        assert self.home(4 * GIB, 1000, model([100 * MIB] * 6, 400 * MIB)) == "disk"

    def test_a_tied_one_is_where_the_head_is(self):
        tied = model([100 * MIB] * 6, 40 * MIB, tied=True)
        assert self.home(2 * GIB, 2, tied) == "cpu"
        lean = planned(LEANEST_BYTES, spec=tied)
        assert lean.placement("embedding").home == lean.placement("head").home == "disk"

    def test_reading_it_is_before_the_first_token(self):
        for startup_s, hidden in [(0.0, False), (2.5, True)]:
            known = replace(SPEEDS, startup_s=startup_s)
            kept, rows = (
                make_plan(SPEC, WORK, Budget(ram_bytes), known, planner="greedy").prediction
                for ram_bytes in (self.ROOM, self.ROOM - 1)
            )
            assert kept.ttft_s == pytest.approx(rows.ttft_s + (0 if hidden else 40 * MIB / 2e9))
            assert kept.warm_ttft_s == rows.warm_ttft_s


def test_too_little_ram_for_the_context_is_told_with_the_account_and_the_longest_one_that_fits():
    ram_bytes = RAM_BESIDE + KV_BYTES + 100 * MIB
    longer = replace(WORK, context_tokens=32768)
    error = refusal(ram_bytes, work=longer)
    assert re.fullmatch(r"No placement keeps the process within \d+\.\d MiB at 32,768 tokens of context", error.message)
    assert [row.label for row in error.rows] == ["weights", "weight ring", "KV cache", "workspace", "process", "total"]
    amounts = {row.label: (row.amount, row.detail) for row in error.rows}
    assert amounts["weight ring"] == ("100.0 MiB", "1 slots x 100.0 MiB")
    assert amounts["KV cache"] == ("192.0 MiB", "32,768 tokens x 6.0 KiB")
    assert amounts["total"][1].startswith("short by ")
    assert error.hint == "`--context 1024` is the longest context that fits"
    assert letters(planned(ram_bytes).placements) == "dRddddddd"
    refusal(ram_bytes, work=replace(WORK, context_tokens=1280))


@pytest.mark.parametrize("ram_bytes", [0, 1, 50 * MIB])
@pytest.mark.parametrize("vram_bytes", [{}, {"gpu:0": 0}, {"gpu:0": 100 * MIB}, {"gpu:0": GIB, "gpu:1": 8 * GIB}])
def test_ram_that_no_context_fits_in_is_told_with_how_much_is_enough(ram_bytes, vram_bytes):
    error = refusal(ram_bytes, vram_bytes)
    assert "at 1,024 tokens of context" in error.message
    enough = int(re.fullmatch(r"`--ram (\d+)MiB` is enough for this context", error.hint)[1])
    assert planned(enough * MIB, vram_bytes).fits
    refusal((enough - 1) * MIB, vram_bytes)


def test_gpus_hold_what_the_ram_cannot_and_the_hint_counts_on_them():
    long = replace(WORK, context_tokens=32768)
    spec = model([100 * MIB] * 6, 40 * MIB, kv_bytes_per_token=16384)  # 512 MiB of KV cache a layer
    beside = process_bytes(spec, long) + workspace_bytes(spec, long) + REST_BYTES + 100 * MIB
    gpu = CUDA_CONTEXT_BYTES + workspace_bytes(spec, long) + REST_BYTES + 100 * MIB
    ram_bytes, vram_bytes = beside + 3 * 512 * MIB, {"gpu:0": gpu + 3 * 512 * MIB}
    plan = planned(ram_bytes, vram_bytes, spec=spec, work=long, planner="aco", planner_s=0.01)
    assert sum(p.device == "gpu:0" for p in plan.placements if p.unit.startswith("layer")) == 3
    hint = refusal(ram_bytes - GIB, vram_bytes, spec=spec, work=long).hint
    shorter = int(re.fullmatch(r"`--context (\d+)` is the longest context that fits", hint)[1])
    assert 8192 < shorter < 32768
    assert planned(ram_bytes - GIB, vram_bytes, spec=spec, work=replace(long, context_tokens=shorter)).gpus
    refusal(ram_bytes - GIB, vram_bytes, spec=spec, work=replace(long, context_tokens=shorter + 256))


def test_a_context_beyond_the_models_own():
    with pytest.raises(UsageError) as refused:
        planned(4 * GIB, work=replace(WORK, context_tokens=32769))
    assert refused.value.reference == "context-too-long"
    assert refused.value.hint == "`--context 32768`"
    assert planned(4 * GIB, work=replace(WORK, context_tokens=32768)).fits


def test_a_planner_that_is_not_there():
    with pytest.raises(UsageError) as refused:
        planned(4 * GIB, planner="ants")
    assert refused.value.reference == "bad-option"
    assert refused.value.hint == "one of aco, greedy, even, exhaustive, milp, random, nsga2"


def test_too_much_to_try():
    with pytest.raises(UsageError) as refused:
        planned(4 * GIB, {"gpu:0": 2 * GIB, "gpu:1": 2 * GIB}, planner="exhaustive")
    assert refused.value.reference == "bad-option"
    assert "--planner aco" in refused.value.hint
