"""Plans as text: the way there and back, and that no wrong one passes."""

import json
from dataclasses import replace

import pytest
from tiny_spec import model

from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.errors import LlmrunError
from llmrun.planner.check_plan import check_plan
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import Busy, Certificate, Placement, Plan, Prediction, Slots
from llmrun.planner.plan_file import plan_from_json, plan_to_json
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

SPEC = model([100 * MIB] * 3)
HOST = "a laptop"
BUDGET = Budget(4 * GIB, {"gpu:0": 2 * GIB})
PREDICTION = Prediction(
    startup_s=3.0,
    ttft_s=5.0,
    warm_ttft_s=4.0,
    tpot_s=0.25,
    bytes_per_token={"cpu": 100 * MIB, "disk": 100 * MIB, "gpu:0": 140 * MIB},
    busy=(Busy("disk", 0.2), Busy("cpu", 0.1)),
    peak_bytes={"cpu": GIB, "gpu:0": GIB},
)
CERTIFICATE = Certificate("total", 68.75, 68.0, 0, 2000)


def plan(**changes) -> Plan:
    """One layer on a GPU that also does the second's prompt, one streamed."""
    placements = (
        Placement("embedding", "disk", "cpu"),
        Placement("rest", "cpu", "cpu"),
        Placement("layer 0", "gpu:0", "gpu:0"),
        Placement("layer 1", "cpu", "cpu", "gpu:0"),
        Placement("layer 2", "disk", "cpu"),
        Placement("head", "cpu", "cpu"),
    )
    workload, slots = Workload(2048), Slots(host=3, gpu=1)
    made = Plan(
        model=SPEC.name,
        planner="aco",
        workload=workload,
        placements=placements,
        rings=rings(SPEC, placements, slots),
        memory=account(SPEC, workload, BUDGET, placements, slots),
        fingerprint=fingerprint(SPEC),
        hardware=HOST,
        prediction=PREDICTION,
        certificate=CERTIFICATE,
    )
    return replace(made, **changes)


def changed(path: str, value: object) -> str:
    """The text of the plan with one value replaced, or taken out by ``...``."""
    whole = json.loads(plan_to_json(plan()))
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place = whole
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(whole)


def refused(reference: str, call, *args) -> LlmrunError:
    with pytest.raises(LlmrunError) as caught:
        call(*args)
    assert caught.value.reference == reference
    return caught.value


def test_there_and_back():
    assert plan_from_json(plan_to_json(plan())) == plan()
    bare = plan(prediction=None, certificate=None, hardware="", fingerprint="")
    assert plan_from_json(plan_to_json(bare)) == bare


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("schema", 1, "schema: 1, where"),
        ("schema", "2", "schema: '2'"),
        ("schema", ..., "schema: None"),
        ("model", ..., "model: "),
        ("model", 7, "model: "),
        ("colour", "red", "colour: "),
        ("placements", [], "placements: there are none"),
        ("placements/1/unit", "embedding", "placements[1].unit: 'embedding' is placed twice"),
        ("placements/2/home", "moon", "placements[2].home: 'moon'"),
        ("placements/2/home", "gpu:-1", "placements[2].home: "),
        ("placements/2/device", "disk", "placements[2].device: 'disk'"),
        ("placements/2/device", "cpu", "placements[2].device: layer 0 lives on gpu:0"),
        ("placements/2/device", "gpu:1", "placements[2].device: layer 0 lives on gpu:0"),
        ("placements/3/prompt_device", "gpu:x", "placements[3].prompt_device: "),
        ("placements/3/extra", 1, "placements[3].extra: "),
        ("rings/0/slots", 0, "rings[0].slots: "),
        ("rings/0/slots", 10**6, "rings[0].slots: "),
        ("rings/0/slots", True, "rings[0].slots: "),
        ("rings/0/slots", 2.0, "rings[0].slots: "),
        ("rings/1/device", "cpu", "rings[1].device: "),
        ("rings/0/device", "disk", "rings[0].device: "),
        ("memory/0/lines/0/nbytes", -1, "memory[0].lines[0].nbytes: -1"),
        ("memory/0/budget_bytes", 10**30, "memory[0].budget_bytes: 1e+30"),
        ("memory/0/budget_bytes", 10**400, "memory[0].budget_bytes: 10000000000000000000..."),
        ("workload/context_tokens", 0, "workload.context_tokens: "),
        ("workload/batch", 0, "workload.batch: "),
        ("workload/past_tokens", -5, "workload.past_tokens: "),
        ("prediction/tpot_s", 0, "prediction.tpot_s: "),
        ("prediction/tpot_s", float("nan"), "prediction.tpot_s: "),
        ("prediction/ttft_s", float("inf"), "prediction.ttft_s: "),
        ("prediction/busy", [], "prediction.busy: "),
        ("prediction/peak_bytes/cpu", "1", "prediction.peak_bytes.cpu: "),
        ("certificate/bound_s", 0, "certificate.bound_s: "),
        ("certificate/seed", None, "certificate.seed: "),
    ],
)
def test_a_bad_field_is_named(path, value, field):
    error = refused("bad-plan-file", plan_from_json, changed(path, value))
    assert error.exit_code == 2
    assert field in error.message


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "[" * 100_000, '{"schema": 2', "\x00"])
def test_what_is_no_plan_at_all(text):
    refused("bad-plan-file", plan_from_json, text)


def test_a_plan_that_holds_is_counted_against_the_budget_of_now():
    now = Budget(3 * GIB, {"gpu:0": GIB + GIB // 2})
    found = check_plan(plan(), SPEC, HOST, now)
    assert found.memory == account(SPEC, plan().workload, now, plan().placements, Slots(3, 1))
    assert replace(found, memory=plan().memory) == plan()


def test_a_plan_without_a_name_of_hardware_or_checkpoint_is_for_any():
    bare = plan(hardware="", fingerprint="")
    assert check_plan(bare, SPEC, HOST, BUDGET) == bare


def test_the_name_of_the_model_does_not_matter_but_its_checkpoint_does():
    assert check_plan(plan(), replace(SPEC, name="moved", folder="/elsewhere"), HOST, BUDGET) == plan()
    larger = model([100 * MIB] * 2 + [101 * MIB])
    error = refused("plan-other-model", check_plan, plan(), larger, HOST, BUDGET)
    assert "numbers" in error.message
    refused("plan-other-model", check_plan, plan(fingerprint=""), model([100 * MIB] * 4), HOST, BUDGET)


def test_a_context_beyond_the_models():
    longer = plan(workload=Workload(65536))
    assert "--context 32768" in refused("context-too-long", check_plan, longer, SPEC, HOST, BUDGET).hint


def test_other_hardware_is_told_with_both_names():
    error = refused("plan-other-hardware", check_plan, plan(), SPEC, "a server", BUDGET)
    assert [row.detail for row in error.rows] == [HOST, "a server"]


@pytest.mark.parametrize("vram_bytes", [{}, {"gpu:0": 0}, {"gpu:1": GIB}])
def test_a_gpu_that_is_not_there(vram_bytes):
    error = refused("gpu-missing", check_plan, plan(), SPEC, HOST, Budget(4 * GIB, vram_bytes))
    assert "gpu:0" in error.message


@pytest.mark.parametrize(("ram_bytes", "vram_bytes"), [(0, 2 * GIB), (GIB // 2, 2 * GIB), (4 * GIB, MIB), (MIB, MIB)])
def test_over_the_budget_of_now_and_the_hint_is_enough(ram_bytes, vram_bytes):
    error = refused("plan-file-over-budget", check_plan, plan(), SPEC, HOST, Budget(ram_bytes, {"gpu:0": vram_bytes}))
    assert error.exit_code == 3
    assert error.rows[-1].label == "total"
    words = error.hint.split("`")[1].split()
    given = {"--ram": ram_bytes, "--vram": vram_bytes}
    given |= {name: int(text.removesuffix("MiB")) * MIB for name, text in zip(words[::2], words[1::2], strict=True)}
    check_plan(plan(), SPEC, HOST, Budget(given["--ram"], {"gpu:0": given["--vram"]}))


@pytest.mark.parametrize(
    ("index", "placement", "field"),
    [
        (0, Placement("embedding", "gpu:0", "gpu:0"), "placements[0].home"),
        (0, Placement("embedding", "disk", "gpu:0"), "placements[0].home"),
        (1, Placement("rest", "disk", "cpu"), "placements[1].home"),
        (1, Placement("rest", "gpu:0", "gpu:0"), "placements[1].home"),
        (5, Placement("head", "cpu", "cpu", "gpu:0"), "placements[5].prompt_device"),
        (3, Placement("layer 1", "gpu:0", "gpu:0", "cpu"), "placements[3].prompt_device"),
    ],
)
def test_what_the_runtime_relies_on(index, placement, field):
    placements = list(plan().placements)
    placements[index] = placement
    error = refused("bad-plan-file", check_plan, plan(placements=tuple(placements)), SPEC, HOST, BUDGET)
    assert field in error.message


def test_rings_that_are_not_those_of_the_placements():
    wrong = tuple(replace(ring, slot_bytes=ring.slot_bytes + 4096) for ring in plan().rings)
    assert "rings" in refused("bad-plan-file", check_plan, plan(rings=wrong), SPEC, HOST, BUDGET).message


def test_a_tied_embedding_is_where_the_head_is():
    tied = model([100 * MIB], tied=True)
    names = ("embedding", "rest", "layer 0", "head")
    together = tuple(Placement(name, "cpu", "cpu") for name in names)
    apart = (Placement("embedding", "disk", "cpu"), *together[1:])
    whole = plan(placements=together, rings=(), fingerprint="")
    assert check_plan(whole, tied, HOST, BUDGET).fits
    error = refused("bad-plan-file", check_plan, plan(placements=apart, rings=(), fingerprint=""), tied, HOST, BUDGET)
    assert "placements[0].home" in error.message
