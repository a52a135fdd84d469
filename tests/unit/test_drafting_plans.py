"""Plans with copies in fewer bits of what streams, to draft with: where they are made, and what they promise."""

from dataclasses import replace

import numpy as np
import pytest
from hosts import SPEEDS
from made_problem import any_candidates, draw_problem, every_candidate
from tiny_spec import model

from llmrun.checkpoint.kept import kept_model, kept_unit
from llmrun.engine.expectation import Expectation
from llmrun.errors import PlanError, UsageError
from llmrun.events import Accepted
from llmrun.planner.certificate.bound import lower_bound
from llmrun.planner.check_plan import check_plan
from llmrun.planner.choices import to_placements
from llmrun.planner.drafting import ACCEPTANCE, can_substitute, lengths_to
from llmrun.planner.make import PLANNERS, WORTH, make_plan
from llmrun.planner.memory import account
from llmrun.planner.plan import CPU, DISK, Drafting
from llmrun.planner.plan_file import plan_from_json, plan_to_json
from llmrun.planner.predict import predict_plan
from llmrun.planner.problem import Objective
from llmrun.settings import AUTO, LOSSLESS, NGRAM, OFF, SELF, Budget, Precision, Quality, Speculating, Workload
from llmrun.tui.about import drafts_text, placement_text
from llmrun.units import GIB, MIB

SPEC = model([100 * MIB] * 12, columns=256)
WORK = Workload(context_tokens=1024, prompt_tokens=64, new_tokens=200)
TIGHT = 1400 * MIB
AUTOMATIC = Speculating(AUTO, 16)


def planned(ram_bytes=TIGHT, how=AUTOMATIC, *, spec=SPEC, vram_bytes=None, planner="aco", work=WORK, **asked):
    budget = Budget(ram_bytes, vram_bytes or {})
    return make_plan(spec, work, budget, SPEEDS, planner=planner, planner_s=0.05, speculating=how, **asked)


def test_all_that_streams_has_a_copy_and_nothing_else():
    plan = planned()
    for placement in plan.placements:
        streams = placement.home == DISK and placement.unit != "embedding"
        assert placement.substitute == ("q4" if streams else None)
    lines = {line.label: line.nbytes for line in plan.memory[0].lines}
    copies = [kept_unit(SPEC.unit(unit), "q4") for unit in plan.substitutes]
    assert lines["substitutes"] == sum(copy.buffer_bytes for copy in copies) > 0
    assert plan.fits
    assert plan.substitute_format == "q4"
    assert plan.workload.draft_tokens == 16


def test_it_is_faster_by_what_a_pass_gives():
    plain, plan = planned(how=Speculating(OFF)), planned()
    found = plan.prediction.drafting
    assert plain.prediction.drafting is None
    assert plan.prediction.tpot_s < (1 - WORTH) * plain.prediction.tpot_s
    assert plan.prediction.tpot_s == pytest.approx(found.pass_s / found.tokens_per_pass)
    assert found.plain_tpot_s == plain.prediction.tpot_s
    assert found.tokens_per_pass == pytest.approx((1 - ACCEPTANCE ** (found.draft_tokens + 1)) / (1 - ACCEPTANCE))
    assert 0 < found.draft_s < found.pass_s
    assert found.making_s > 0
    busy = {one.resource: one.busy_s for one in plan.prediction.busy}
    assert max(busy.values()) <= plan.prediction.tpot_s * 1.001
    assert plan.prediction.bytes_per_token[DISK] < plain.prediction.bytes_per_token[DISK] / 2


def test_an_answer_in_which_copies_are_made_takes_longer():
    found = Drafting(4, 0.8, draft_s=1.0, pass_s=3.0, making_s=5.0, alone_s=1.5)
    assert found.making_passes == 3
    assert found.first_tpot_s(0.5, 10) == pytest.approx((5.0 + 7 * 0.5) / 10)
    assert found.first_tpot_s(0.5, 2) == pytest.approx(5.0 / 3)
    assert replace(found, alone_s=2.0).first_tpot_s(0.5, 10) == pytest.approx((6.0 + 7 * 0.5) / 10)
    assert replace(found, making_s=0.0).first_tpot_s(0.5, 10) == 0.5  # of another model


def test_what_is_expected_follows_what_was_seen():
    told = Expectation(SPEC, planned(), SPEEDS, 0.0)

    def of(guesses, *, first=False):
        return told.of(Accepted(0.0, 64, 0), 200, first=first, guesses=guesses)

    later, good, bad = of((0, 0)), of((98, 100)), of((50, 100))
    assert good.tokens_per_pass > later.tokens_per_pass > bad.tokens_per_pass
    assert good.tpot_s < later.tpot_s < bad.tpot_s
    assert of((0, 0), first=True).tpot_s > later.tpot_s


def test_no_length_would_be_faster():
    plan = planned()
    found = plan.prediction.drafting
    for length in lengths_to(16):
        fixed = replace(plan, prediction=replace(plan.prediction, drafting=replace(found, draft_tokens=length)))
        assert predict_plan(SPEC, fixed, SPEEDS, plan.workload).tpot_s >= plan.prediction.tpot_s * (1 - 1e-9)


def test_a_guess_that_is_right_more_often_is_worth_longer_drafts():
    found = [planned(acceptance=share).prediction for share in (0.6, 0.8, 0.95)]
    lengths = [prediction.drafting.draft_tokens for prediction in found]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
    assert found[0].tpot_s > found[1].tpot_s > found[2].tpot_s
    assert planned(acceptance=1.0).prediction.drafting.acceptance < 1


@pytest.mark.parametrize(
    ("ram_bytes", "asked"),
    [
        (16 * GIB, {}),  # all of it is resident
        (TIGHT, {"how": Speculating(OFF)}),
        (TIGHT, {"how": Speculating(NGRAM)}),
        (TIGHT, {"acceptance": 0.02}),  # hardly a guess is right
        (TIGHT, {"precision": Precision(Quality.SMALL)}),  # what stays is as small already
        (TIGHT, {"spec": model([100 * MIB] * 12)}),  # no blocks to round
        (TIGHT, {"spec": kept_model(SPEC, "q8")}),
        (TIGHT, {"objective": Objective.TTFT}),
        (TIGHT, {"work": replace(WORK, prefill_chunk_tokens=1)}),
    ],
)
def test_where_there_are_none(ram_bytes, asked):
    assert planned(ram_bytes, **asked).substitutes == ()


def test_experts_of_which_a_token_needs_a_few_have_none():
    units = tuple(replace(unit, flops_per_token=unit.flops_per_token // 4) for unit in SPEC.units)
    assert can_substitute(SPEC, LOSSLESS)
    assert not can_substitute(replace(SPEC, units=units), LOSSLESS)


def test_what_is_asked_for_is_done_or_refused():
    assert planned(how=Speculating(SELF), acceptance=0.02).substitutes
    assert planned(16 * GIB, Speculating(SELF)).substitutes == ()
    small = planned(how=Speculating(OFF)).memory[0].nbytes // 2
    while True:  # the least that does without
        try:
            plain = planned(small, Speculating(OFF))
            break
        except PlanError:
            small += 16 * MIB
    assert planned(small) == replace(plain, speculating=AUTOMATIC)
    with pytest.raises(PlanError) as refusal:
        planned(small, Speculating(SELF))
    assert "substitutes" in {row.label for row in refusal.value.rows}


def test_a_gpu_does_without_where_it_is_faster():
    plan = planned(vram_bytes={"gpu:0": 3 * GIB})
    assert plan.substitutes == ()
    assert plan.gpus == ("gpu:0",)


@pytest.mark.parametrize("planner", sorted(PLANNERS.keys() - {"exhaustive", "nsga2"}))
def test_every_planner_makes_them(planner):
    plan = planned(how=Speculating(SELF), planner=planner)
    assert plan.substitutes
    assert plan.fits


@pytest.mark.parametrize("seed", range(12))
def test_the_bound_is_below_the_best_of_all(seed):
    problem = draw_problem(seed, 1 + seed % 3, 0, substitute="q4")
    best_s = problem.seconds(every_candidate(problem)).min()
    bound_s = lower_bound(problem).seconds
    assert bound_s <= best_s
    assert np.isinf(bound_s) == np.isinf(best_s)


def test_candidates_take_byte_for_byte_what_the_account_says():
    problem = draw_problem(3, 5, 0, substitute="q4", precision=Precision(Quality.HIGH))
    found = any_candidates(problem, 1, 40)
    used = problem.fit.used_bytes(found)
    for row, codes in enumerate(found.codes.tolist()):
        placements = to_placements(problem.spec, problem.choices, codes)
        (memory,) = account(problem.spec, problem.workload, problem.budget, placements, found.slots(row))
        assert memory.nbytes == used[row, 0]


def test_it_becomes_json_and_is_checked_when_it_comes_back():
    plan = planned()
    text = plan_to_json(plan)
    assert plan_from_json(text) == plan
    assert check_plan(plan, SPEC, plan.hardware, Budget(TIGHT)) == plan
    at = next(index for index, one in enumerate(plan.placements) if one.substitute)
    for wrong in (replace(plan.placements[at], home=CPU), replace(plan.placements[at], substitute="q3")):
        placements = (*plan.placements[:at], wrong, *plan.placements[at + 1 :])
        with pytest.raises(UsageError, match="substitute"):
            plan_from_json(plan_to_json(replace(plan, placements=placements)))
    for figures in (Drafting(0, 0.5, 1.0, 1.0, 1.0), Drafting(4, 1.0, 1.0, 1.0, 1.0), Drafting(4, 0.5, 1.0, 0.0, 1.0)):
        wrong_text = plan_to_json(replace(plan, prediction=replace(plan.prediction, drafting=figures)))
        with pytest.raises(UsageError, match="drafting"):
            plan_from_json(wrong_text)
    with pytest.raises(UsageError, match="nothing of layer"):
        check_plan(replace(plan, fingerprint="", hardware=""), kept_model(SPEC, "q4"), "", Budget(4 * GIB))


def test_a_run_with_other_drafts_is_not_promised_these():
    plan = planned()
    assert plan.speculating_as(Speculating(OFF)).prediction.drafting is None
    assert plan.speculating_as(AUTOMATIC) == plan
    again = predict_plan(SPEC, plan, SPEEDS, plan.workload)
    assert again.tpot_s == pytest.approx(plan.prediction.tpot_s)
    off = predict_plan(SPEC, plan.speculating_as(Speculating(OFF)), SPEEDS, plan.workload)
    assert off.tpot_s > again.tpot_s


def test_people_are_told_what_a_pass_reads_and_what_drafts():
    plain, plan = planned(how=Speculating(OFF)), planned()
    assert "read from disk for every token" in placement_text(SPEC, plain)
    assert "read from disk for every pass" in placement_text(SPEC, plan)
    assert drafts_text(SPEC, plan).startswith(f"by {len(plan.substitutes)} units copied in q4, ")
    assert not drafts_text(SPEC, plain)
