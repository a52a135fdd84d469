"""Plans with a small model that drafts: what it takes comes first, and what it promises."""

from dataclasses import replace

import pytest
from hosts import SPEEDS
from tiny_spec import model

from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.cli.guesses_file import keep_guesses, known_acceptance
from llmrun.cli.plans_folder import save_plan, saved_plan
from llmrun.errors import PlanError
from llmrun.planner.check_plan import check_plan
from llmrun.planner.draft_model import (
    counts,
    draft_model_bytes,
    draft_model_plan,
    draft_model_speed,
    with_draft_peak,
)
from llmrun.planner.drafting import ACCEPTANCE, MODEL_ACCEPTANCE
from llmrun.planner.make import make_plan
from llmrun.planner.memory import account, kv_bytes, workspace_bytes
from llmrun.planner.peak import peak_bytes
from llmrun.planner.plan import CPU
from llmrun.planner.plan_file import plan_from_json, plan_to_json
from llmrun.planner.predict import predict, predict_plan
from llmrun.settings import AUTO, NGRAM, OFF, Budget, Speculating, Workload
from llmrun.units import GIB, MIB

SPEC = model([100 * MIB] * 12)
SMALL = model([8 * MIB] * 4, 4 * MIB, kv_bytes_per_token=512)
WORK = Workload(context_tokens=1024, prompt_tokens=64, new_tokens=200)
BUDGET = Budget(1400 * MIB)
ASKED = Speculating("small", 16)


def planned(budget=BUDGET, how=ASKED, *, small=SMALL, spec=SPEC, work=WORK, **asked):
    small = small if how.model else None
    return make_plan(spec, work, budget, SPEEDS, planner_s=0.05, speculating=how, draft_model=small, **asked)


def lines_of(plan):
    return {line.label: line.nbytes for line in plan.memory[0].lines}


def test_the_large_one_gets_what_the_small_one_leaves():
    plan, plain = planned(), planned(how=Speculating(OFF))
    taken = draft_model_bytes(SMALL, WORK)
    assert lines_of(plan)["draft model"] == plan.workload.draft_model_bytes == taken
    assert plan.fits
    assert lines_of(plan)["weights"] < lines_of(plain)["weights"]
    roomy = planned(Budget(BUDGET.ram_bytes + taken))
    assert lines_of(roomy)["weights"] >= lines_of(plan)["weights"]


def test_it_takes_weights_kv_cache_and_workspace():
    """All of it is in RAM, and nothing streams."""
    own = draft_model_plan(SMALL, replace(WORK, draft_tokens=16))
    assert {(p.home, p.device, p.kept, p.substitute) for p in own.placements} == {(CPU, CPU, None, None)}
    assert own.rings == ()
    weights = sum(unit.buffer_bytes for unit in SMALL.units)
    kv = sum(kv_bytes(unit, WORK) for unit in SMALL.units)
    assert draft_model_bytes(SMALL, WORK) == weights + kv + workspace_bytes(SMALL, WORK)
    short = replace(SMALL, context_tokens=512)
    assert draft_model_plan(short, WORK).workload.context_tokens == 512
    assert draft_model_bytes(short, WORK) < draft_model_bytes(SMALL, WORK)


def test_what_does_not_fit_beside_it_is_refused_with_numbers():
    with pytest.raises(PlanError) as refusal:
        planned(small=model([400 * MIB] * 4))
    rows = {row.label: row for row in refusal.value.rows}
    assert rows["draft model"].amount.startswith("1.")
    assert "short by" in rows["total"].detail


def test_what_a_pass_gives_and_takes():
    plan, plain = planned(), planned(how=Speculating(OFF))
    found = plan.prediction.drafting
    each_s = draft_model_speed(SMALL, WORK, SPEEDS).guess_s
    assert found.draft_s == pytest.approx(found.draft_tokens * each_s)
    assert found.plain_tpot_s == plain.prediction.tpot_s
    assert plan.prediction.tpot_s < plain.prediction.tpot_s
    slower = planned(small=model([60 * MIB] * 4)).prediction.drafting
    assert slower.draft_s / slower.draft_tokens > each_s
    assert planned(acceptance=0.9).prediction.tpot_s < planned(acceptance=0.5).prediction.tpot_s
    again = predict_plan(SPEC, plan, SPEEDS, plan.workload)
    assert again.tpot_s == pytest.approx(plan.prediction.tpot_s)


def test_it_comes_in_and_reads_the_prompt_before_it_drafts():
    plan = planned()
    speed, found = draft_model_speed(SMALL, WORK, SPEEDS), plan.prediction.drafting
    assert (found.load_s, found.prompt_token_s) == (speed.load_s, speed.prompt_token_s)
    assert speed.load_s == pytest.approx(sum(unit.buffer_bytes for unit in SMALL.units) / SPEEDS.disk.bytes_per_s.p50)
    assert 0 < speed.prompt_token_s < speed.guess_s
    read_s = speed.prompt_token_s * WORK.prompt_tokens
    passes_s = found.pass_s / found.tokens_per_pass
    assert plan.prediction.tpot_s == pytest.approx(passes_s + read_s / (WORK.new_tokens - 1))
    alone = predict(SPEC, plan.placements, plan.slots, SPEEDS, plan.workload)
    assert found.alone_s == alone.tpot_s
    assert alone.ttft_s < plan.prediction.ttft_s <= alone.ttft_s + speed.load_s
    assert plan.prediction.warm_ttft_s == alone.warm_ttft_s
    rested = predict_plan(SPEC, plan, SPEEDS, plan.workload, idle_s=60.0)
    assert rested.ttft_s == predict(SPEC, plan.placements, plan.slots, SPEEDS, plan.workload, idle_s=60.0).ttft_s


def test_a_short_answer_to_a_long_prompt_is_expected_without():
    plan = planned()
    work = replace(plan.workload, prompt_tokens=900, new_tokens=4)
    slow = replace(plan.prediction.drafting, prompt_token_s=0.01)
    plan = replace(plan, prediction=replace(plan.prediction, drafting=slow))
    short, long = (predict_plan(SPEC, plan, SPEEDS, replace(work, new_tokens=count)) for count in (4, 900))
    assert short.drafting is None
    assert short.tpot_s == predict(SPEC, plan.placements, plan.slots, SPEEDS, work).tpot_s
    assert long.tpot_s < short.tpot_s
    assert long.drafting


def test_a_short_request_takes_less_of_it_than_is_reserved():
    work = replace(WORK, context_tokens=4096)
    plan = planned(Budget(2 * GIB), work=work)
    own = lines_of(plan)["draft model"]
    weights = sum(unit.buffer_bytes for unit in SMALL.units)
    plain = peak_bytes(SPEC, plan.workload, plan.placements, plan.slots)[CPU]
    peak = plan.prediction.peak_bytes[CPU]
    assert plain - own + weights < peak < plain < plan.memory[0].nbytes
    longer = replace(plan.workload, past_tokens=1024, prompt_tokens=2048, new_tokens=1024)
    at = [with_draft_peak(plan.prediction, SMALL, asked).peak_bytes[CPU] for asked in (plan.workload, longer)]
    assert at[0] < at[1] <= plan.prediction.peak_bytes[CPU]


def test_it_drafts_unless_something_else_is_asked_for():
    plan = planned()
    assert [plan.drafts(Speculating(how)) for how in ("small", AUTO, OFF, NGRAM, "other")] == [True, True] + 3 * [False]
    assert plan.speculating_as(Speculating(OFF)).prediction.drafting is None
    assert planned(work=replace(WORK, prefill_chunk_tokens=1)).prediction.drafting is None


def test_it_becomes_json_and_counts_when_it_comes_back():
    plan = planned()
    assert plan_from_json(plan_to_json(plan)) == plan
    assert check_plan(plan, SPEC, plan.hardware, BUDGET) == plan
    assert counts(plan, SMALL)
    assert not counts(plan, model([9 * MIB] * 4))
    assert not counts(planned(how=Speculating(OFF)), SMALL)


def test_account_of_a_placement_has_it_on_the_cpu_alone():
    plan = planned()
    with_gpu = account(SPEC, plan.workload, Budget(4 * GIB, {"gpu:0": GIB}), plan.placements)
    assert ["draft model" in {line.label for line in memory.lines} for memory in with_gpu] == [True, False]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_a_saved_plan_serves_the_same_small_model_only():
    plan = planned()
    save_plan(plan, SPEC)

    def saved(how, small):
        context = WORK.context_tokens
        return saved_plan(SPEC, plan.hardware, BUDGET, context, speculating=how, draft_model=small)

    assert saved(ASKED, SMALL)[0] == plan
    for how, small in ((ASKED, model([9 * MIB] * 4)), (Speculating(AUTO, 16), None), (Speculating("other", 16), SMALL)):
        found, note = saved(how, small)
        assert found is None
        assert "not used" in note


@pytest.mark.usefixtures("cache")
def test_guesses_are_remembered_for_each_pair():
    other = model([2 * MIB] * 2)
    assert fingerprint(other) != fingerprint(SMALL)
    for _ in range(4):
        keep_guesses(SPEC, 1, 50, SMALL)
    assert known_acceptance(SPEC, SMALL) < 0.5
    assert known_acceptance(SPEC, other) == known_acceptance(SMALL, SPEC) == MODEL_ACCEPTANCE
    assert known_acceptance(SPEC) == ACCEPTANCE
