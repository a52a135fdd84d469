"""What a plan is predicted to show, and what of that a run is told: figures that can be worked out by hand."""

from dataclasses import replace

import pytest
from hosts import SPEEDS, speeds
from tiny_spec import LETTERS, model

from llmrun.engine.expectation import Expectation
from llmrun.events import Accepted
from llmrun.planner import make_plan
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import DEFAULT_SLOTS, Placement, Plan, Slots
from llmrun.planner.predict import predict_plan
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

SPEC = model([100 * MIB] * 6, 40 * MIB)
WORK = Workload(context_tokens=1024, prompt_tokens=64, new_tokens=32)
BUDGET = Budget(2 * GIB, {"gpu:0": 2 * GIB, "gpu:1": 2 * GIB})
AT_ONCE = replace(speeds(2), startup_s=0.0)  # the engine is ready before any weights are there
PLACES = {letter: place for place, letter in LETTERS.items()}


def by_hand(letters, slots=DEFAULT_SLOTS, spec=SPEC, work=WORK):
    """One letter a unit: embedding, rest, the layers, head."""
    placements = tuple(Placement(unit.name, *PLACES[letter]) for unit, letter in zip(spec.units, letters, strict=True))
    memory = account(spec, work, BUDGET, placements, slots)
    return Plan(spec.name, "by hand", work, placements, rings(spec, placements, slots), memory)


def foretold(letters, slots=DEFAULT_SLOTS, work=WORK, known=AT_ONCE, **options):
    return predict_plan(SPEC, by_hand(letters, slots), known, work, **options)


def test_a_token_of_a_resident_model_reads_every_weight_and_the_cache_once():
    seen = foretold("RRRRRRRRR")
    weights_s = 640 * MIB / 2e10  # six layers and the head
    past = 64 + 32 // 2
    attention_s = 6 * 1024 * (past + 1) / 5e9
    assert seen.tpot_s == pytest.approx(weights_s + attention_s + 6 * (2e-4 + 1e-9 * (64 + 256)) + 1e-3)
    assert seen.decode_tokens_per_s == 1 / seen.tpot_s
    assert seen.bytes_per_token == {"cpu": 640 * MIB}
    assert seen.bottleneck == "cpu"
    assert {busy.resource: busy.busy_s for busy in seen.busy}["disk"] == 0
    assert foretold("RRRRRRRRR", known=SPEEDS).startup_s == 2.5


def test_a_token_of_a_streamed_model_takes_as_long_as_reading_it():
    seen = foretold("dRddddddd", Slots(4, 1))
    assert seen.tpot_s == pytest.approx(640 * MIB / 2e9, rel=0.01)
    assert seen.bytes_per_token == {"disk": 640 * MIB}
    assert seen.bottleneck == "disk"


@pytest.mark.parametrize(
    ("letters", "tiers", "busy"),
    [
        ("dRRdRdRdR", {"cpu": 340, "disk": 300}, {"disk", "cpu"}),
        ("R00a0x0a0", {"cpu": 200, "disk": 100, "gpu:0": 340}, {"disk", "cpu", "link gpu:0", "gpu:0"}),
        ("d1111yyb1", {"cpu": 100, "disk": 200, "gpu:1": 340}, {"disk", "cpu", "link gpu:1", "gpu:1"}),
        ("R10001111", {"gpu:0": 300, "gpu:1": 340}, {"disk", "cpu", "link gpu:0", "gpu:0", "link gpu:1", "gpu:1"}),
    ],
)
def test_bytes_come_from_where_the_weights_live_and_only_devices_in_use_are_busy(letters, tiers, busy):
    seen = foretold(letters)
    assert seen.bytes_per_token == {tier: mib * MIB for tier, mib in tiers.items()}
    assert {one.resource for one in seen.busy} == busy
    assert all(one.busy_s <= seen.tpot_s * (1 + 1e-9) for one in seen.busy)


def test_a_tied_embedding_costs_nothing_of_its_own():
    spec = model([100 * MIB] * 6, 40 * MIB, tied=True)
    plan = by_hand("RRRRRRRRR", spec=spec)
    assert predict_plan(spec, plan, SPEEDS, WORK).bytes_per_token == {"cpu": 640 * MIB}


def test_the_slots_are_the_plans_own():
    one, four = (foretold("dRddddddd", Slots(slots, 1)).tpot_s for slots in (1, 4))
    assert one > 1.1 * four
    assert foretold("dRddddddd").tpot_s == foretold("dRddddddd", DEFAULT_SLOTS).tpot_s


@pytest.mark.parametrize("letters", ["RRRRRRRRR", "dRRdRdRdR", "dRddddddd", "R00a0x0a0", "R0000bbb0"])
def test_the_longer_the_weights_come_in_before_the_request_the_sooner_is_the_first_token(letters):
    after = [foretold(letters, idle_s=idle_s) for idle_s in (0, 0.01, 0.1, 1, 10, 1000)]
    firsts = [round(seen.ttft_s, 9) for seen in after]
    assert firsts == sorted(firsts, reverse=True)
    assert firsts[0] > firsts[1] > firsts[-1]
    assert firsts[-1] <= round(after[0].warm_ttft_s, 9)
    assert len({(seen.tpot_s, seen.warm_ttft_s) for seen in after}) == 1


def test_a_request_before_the_weights_are_there_waits_for_them():
    cold, warm = foretold("RRRRRRRRR"), foretold("RRRRRRRRR", idle_s=60)
    assert cold.ttft_s > 680 * MIB / 2e9 > warm.ttft_s
    assert warm.ttft_s == pytest.approx(warm.warm_ttft_s)


def test_a_longer_prompt_takes_longer_and_a_longer_past_slows_every_token():
    short, long = foretold("RRRRRRRRR"), foretold("RRRRRRRRR", work=replace(WORK, prompt_tokens=512))
    after = foretold("RRRRRRRRR", work=replace(WORK, past_tokens=448))
    assert long.warm_ttft_s > short.warm_ttft_s
    assert short.tpot_s < long.tpot_s == pytest.approx(after.tpot_s)
    assert short.warm_ttft_s < after.warm_ttft_s < long.warm_ttft_s


def test_a_gpu_that_was_not_measured():
    with pytest.raises(KeyError, match="gpu:1"):
        foretold("R11111111", known=speeds(1))


@pytest.mark.parametrize("planner", ["greedy", "even", "milp", "aco"])
def test_a_plan_has_the_prediction_of_its_own_workload(planner):
    budget = Budget(GIB, {"gpu:0": GIB})
    plan = make_plan(SPEC, WORK, budget, speeds(1), planner=planner, planner_s=0.01)
    assert plan.prediction == predict_plan(SPEC, plan, speeds(1), WORK)
    assert plan.prediction != predict_plan(SPEC, plan, speeds(1), replace(WORK, prompt_tokens=65))


class TestExpectation:
    READY_S = 1000.0

    def of(self, letters, at_s=READY_S, prompt=64, reused=0, new=32, *, first=True):
        told = Expectation(SPEC, by_hand(letters), AT_ONCE, self.READY_S)
        return told.of(Accepted(at_s, prompt, reused), new, first=first)

    def test_the_first_request_is_that_of_the_plan(self):
        told, seen = self.of("dRRdRdRdR"), foretold("dRRdRdRdR")
        assert (told.ttft_s, told.tpot_s, told.peak_bytes) == (seen.ttft_s, seen.tpot_s, seen.peak_bytes)

    def test_a_later_one_finds_the_weights_there(self):
        told = self.of("RRRRRRRRR", first=False)
        assert told.ttft_s == foretold("RRRRRRRRR").warm_ttft_s < self.of("RRRRRRRRR").ttft_s
        assert told == replace(self.of("RRRRRRRRR", at_s=2000.0, first=False), at_s=told.at_s)

    def test_who_waits_with_the_first_waits_less_for_it(self):
        waited = [self.of("RRRRRRRRR", at_s=self.READY_S + idle_s).ttft_s for idle_s in (-5, 0, 0.1, 60)]
        assert waited[0] == waited[1] > waited[2] > waited[3] == pytest.approx(foretold("RRRRRRRRR").warm_ttft_s)

    def test_what_is_in_the_cache_already_is_past(self):
        told = self.of("RRRRRRRRR", prompt=128, reused=64, first=False)
        seen = foretold("RRRRRRRRR", work=replace(WORK, past_tokens=64))
        assert (told.ttft_s, told.tpot_s) == (seen.warm_ttft_s, seen.tpot_s)
        assert told.ttft_s < self.of("RRRRRRRRR", prompt=128, first=False).ttft_s

    def test_the_length_of_the_answer_counts(self):
        lengths = [self.of("RRRRRRRRR", new=new) for new in (1, 2, 900)]
        assert lengths[0].tpot_s == lengths[1].tpot_s < lengths[2].tpot_s
        assert lengths[1].peak_bytes["cpu"] < lengths[2].peak_bytes["cpu"]

    @pytest.mark.parametrize(
        ("letters", "moved"),
        [
            ("RRRRRRRRR", {"disk": 0}),
            ("dRRdRdRdd", {"disk": 340}),
            ("R00000000", {"disk": 0}),
            ("R00a0x0a0", {"disk": 100, "cpu": 300}),  # what is read from disk passes the RAM on its way
        ],
    )
    def test_only_what_moves_is_counted(self, letters, moved):
        assert self.of(letters).read_bytes_per_token == {tier: mib * MIB for tier, mib in moved.items()}
