"""``llmrun plan`` around the planner: what is planned for, what is told, what is written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hosts import SPEEDS
from shapes import write_sparse
from tiny_checkpoint import write_checkpoint
from tiny_spec import model

from llmrun.checkpoint import read_spec
from llmrun.cli.machine import Machine, budget_on, given_machine, this_machine
from llmrun.cli.options import workload_within
from llmrun.cli.plan import PlanSettings, make_report, maker
from llmrun.cli.plan_report import plan_report_json
from llmrun.errors import LlmrunError, UsageError
from llmrun.hardware import Cpu, Gpu, HardwareProfile, MemoryLimit, default_budget, probe
from llmrun.hardware.hardware_file import save_hardware
from llmrun.hardware.host_key import host_key
from llmrun.hardware.speeds_cache import store_speeds, with_disk
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import Busy, Certificate, Placement, Plan, Prediction
from llmrun.planner.plan_file import plan_from_json
from llmrun.settings import Budget
from llmrun.units import GIB, MIB

GPUS = tuple(Gpu(f"gpu:{n}", "a GPU", f"GPU-{n}", 8 * GIB, 7 * GIB, "") for n in range(2))
PROFILE = HardwareProfile(
    Cpu("a CPU", 4, 8), (MemoryLimit("physical memory", 16 * GIB, 12 * GIB),), GPUS, None, speeds=SPEEDS
)
MACHINE = Machine(PROFILE, SPEEDS, "a-file.json")
SPEC = model([MIB])
LONG = replace(SPEC, context_tokens=8192)
NO_GPU = Machine(replace(PROFILE, gpus=()), replace(SPEEDS, devices=SPEEDS.devices[:1]), "a-file.json")


class Notes(list):
    __call__ = list.append


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


@pytest.fixture
def hardware(tmp_path: Path) -> str:
    save_hardware(PROFILE, tmp_path / "host.json")
    return str(tmp_path / "host.json")


def all_in_ram(now, planner: str) -> Plan:
    """A planner that looks at nothing."""
    placements = [Placement(unit.name, "cpu", "cpu") for unit in now.spec.units]
    tpot_s = now.spec.nbytes / now.speeds.disk.bytes_per_s.p50
    return Plan(
        now.spec.name, planner, now.workload, tuple(placements), rings(now.spec, placements),
        account(now.spec, now.workload, now.budget, placements), hardware=now.speeds.host,
        prediction=Prediction(3.0, 1.0, 0.5, tpot_s, {"cpu": now.spec.nbytes}, (Busy("cpu", tpot_s),), {"cpu": GIB}),
        certificate=Certificate("total", 1.5, 1.2, 0, 1),
    )  # fmt: skip


def report(checkpoint: Path, hardware: str, **changes):
    settings = PlanSettings(model=str(checkpoint), hardware=hardware, **changes)
    return make_report(settings, all_in_ram, Notes())[0]


@pytest.mark.parametrize(
    ("asked", "prompt", "new"),
    [
        ((4096, None, None, None), 512, 256),
        ((64, None, None, None), 42, 22),
        ((1, None, None, None), 1, 1),
        ((8192, 512, None, None), 341, 171),
        ((8192, None, 3000, None), 3000, 256),
        ((8192, None, 4000, None), 4000, 96),
        ((8192, 1024, None, 900), 1, 900),
        ((8192, 8192, 8000, 192), 8000, 192),
    ],
)
def test_what_is_not_said_fits_the_context(asked, prompt, new):
    workload = workload_within(replace(SPEC, context_tokens=asked[0]), *asked[1:])
    assert (workload.prompt_tokens, workload.new_tokens) == (prompt, new)
    assert workload.context_tokens == asked[1] or workload.context_tokens == min(4096, asked[0])


@pytest.mark.parametrize(("prompt", "new", "enough"), [(4096, None, 4097), (4000, 200, 4200), (None, 4096, 4097)])
def test_a_request_longer_than_the_context_is_told_with_what_is_enough(prompt, new, enough):
    with pytest.raises(UsageError) as caught:
        workload_within(LONG, None, prompt, new)
    assert caught.value.reference == "bad-option"
    assert caught.value.hint == f"`--context {enough}`"
    workload_within(LONG, enough, prompt, new)


@pytest.mark.parametrize(("wide", "tokens"), [(11008, 256), (33000, 192), (60000, 128), (10_000_000, 64)])
def test_a_prompt_goes_through_in_chunks_whose_activations_the_heap_keeps(wide, tokens):
    assert workload_within(replace(SPEC, intermediate_size=wide), None, None, None).prefill_chunk_tokens == tokens


def test_the_budget_is_that_machines():
    notes = Notes()
    assert budget_on(MACHINE, None, None, notes).ram_bytes == default_budget(PROFILE).ram_bytes
    assert budget_on(MACHINE, GIB, 2 * GIB, notes) == Budget(GIB, {"gpu:0": 2 * GIB})
    assert notes == ["gpu:1 is left alone: it was not measured"] * 2


def test_vram_without_a_gpu_is_told():
    notes = Notes()
    assert budget_on(NO_GPU, GIB, GIB, notes) == Budget(GIB)
    assert notes == ["--vram has no effect: there is no GPU"]
    assert budget_on(NO_GPU, GIB, None, notes) == budget_on(NO_GPU, GIB, 0, notes) == Budget(GIB)
    assert len(notes) == 1


def test_a_machine_from_a_file(hardware):
    notes = Notes()
    machine = given_machine(hardware, notes)
    assert machine == replace(MACHINE, name=hardware)
    assert not machine.is_this_host
    assert machine.words == f"{hardware}, a CPU, 16.0 GiB RAM, a GPU 8.0 GiB, a GPU 8.0 GiB, disk 1.9 GiB/s"
    assert notes == []


def test_a_preset_says_that_it_was_not_measured():
    notes = Notes()
    assert given_machine("laptop-16gib", notes).words.startswith("laptop-16gib, ")
    assert any("not measured" in note for note in notes)


def test_a_file_without_speeds(tmp_path):
    save_hardware(replace(PROFILE, speeds=None), tmp_path / "host.json")
    with pytest.raises(UsageError) as caught:
        given_machine(str(tmp_path / "host.json"), Notes())
    assert caught.value.reference == "no-speeds"


def test_this_host_before_it_was_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    folder = write_sparse("SmolLM2-135M", tmp_path / "large")
    changed_ns = folder.stat().st_mtime_ns
    with pytest.raises(UsageError) as caught:
        this_machine(read_spec(folder), Notes(), may_measure=False)
    assert caught.value.reference == "no-speeds"
    assert f"llmrun inspect --measure --path {folder}`" in caught.value.hint
    assert not (tmp_path / "cache").exists()
    assert folder.stat().st_mtime_ns == changed_ns


def test_a_model_too_small_for_its_place_to_matter_needs_no_measuring(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    machine = this_machine(read_spec(checkpoint), Notes(), may_measure=False)
    assert machine.is_this_host
    assert "too small" in " ".join(machine.speeds.notes)
    assert not (tmp_path / "cache").exists()


def test_this_host_after_it_was_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    folder = write_sparse("SmolLM2-135M", tmp_path / "large")
    profile = with_disk(probe(), folder)
    measured = replace(SPEEDS, host=host_key(profile), devices=SPEEDS.devices[:1])
    assert store_speeds(profile, measured)
    assert this_machine(read_spec(folder), Notes(), may_measure=False).speeds == measured
    monkeypatch.setenv("LLMRUN_MEASURE_S", "0")  # nor the layers of this model
    assert this_machine(read_spec(folder), Notes(), may_measure=True).speeds == measured


def test_a_report_holds_what_was_asked(checkpoint, hardware):
    whole = report(checkpoint, hardware, compare=True, explain=True, ram_bytes=GIB, context_tokens=64)
    assert whole.plan.workload == workload_within(replace(SPEC, context_tokens=64), 64, None, None)
    assert whole.plan.memory[0].budget_bytes == GIB
    assert {one.planner for one in whole.comparisons} >= {"greedy", "even"}
    assert [one.change.name for one in whole.what_ifs][:2] == ["ram_plus_8_gib", "bigger_gpu"]
    bare = report(checkpoint, hardware)
    assert bare.comparisons is bare.what_ifs is None


def test_json_has_names_with_units_and_a_plan_that_can_be_read(checkpoint, hardware):
    whole = report(checkpoint, hardware, compare=True, explain=True)
    value = json.loads(plan_report_json(whole))
    assert value["schema"] == 1
    assert list(value) == ["schema", "model", "hardware", "prediction", "certificate", "plan", "compare", "what_if"]
    assert value["model"]["weight_bytes"] == whole.spec.nbytes
    assert value["prediction"]["decode_tokens_per_s"] == pytest.approx(1 / value["prediction"]["tpot_s"])
    assert value["prediction"]["bottleneck"] == "cpu"
    assert value["certificate"]["gap"] == pytest.approx(0.25)
    assert plan_from_json(json.dumps(value["plan"])) == whole.plan
    half = next(one for one in value["what_if"] if one["change"] == "half_the_bytes_per_weight")
    assert half["prediction"]["tpot_s"] == pytest.approx(value["prediction"]["tpot_s"] / 2)


def test_json_of_a_planner_that_did_not_run(checkpoint, hardware):
    def make(now, planner: str) -> Plan:
        if planner == "greedy":
            raise LlmrunError("internal-error", "it is ill")
        return all_in_ram(now, planner)

    settings = PlanSettings(model=str(checkpoint), hardware=hardware, compare=True, planner="even")
    value = json.loads(plan_report_json(make_report(settings, make, Notes())[0]))
    assert {"planner": "greedy", "not_run": "it is ill"} in value["compare"]
    assert "what_if" not in value


def test_an_unknown_goal_lists_those_there_are():
    with pytest.raises(UsageError) as caught:
        maker(PlanSettings(optimize="speed"))
    assert caught.value.reference == "bad-option"
    assert caught.value.hint == "one of total, ttft, tpot, throughput"
