"""What holds for every plan, whatever the model, the budget and the planner."""

import re
from dataclasses import replace
from importlib.util import find_spec

from hosts import speeds
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from planning import cases, equal_layers, model_of, unlike_layers, vrams, works

from llmrun.errors import PlanError, UsageError
from llmrun.planner import PLANNERS, make_plan
from llmrun.planner.check_plan import check_plan
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import CPU, DISK
from llmrun.planner.plan_file import plan_from_json, plan_to_json
from llmrun.planner.predict import predict_plan
from llmrun.planner.problem import Objective
from llmrun.settings import Budget
from llmrun.units import GIB, MIB

SPEEDS = speeds(2)
BRIEFLY_S = 0.01
runnable = sorted(name for name in PLANNERS if name != "nsga2" or find_spec("pymoo"))
planners = st.sampled_from(runnable)
objectives = st.sampled_from(list(Objective))
few_layers = st.one_of(equal_layers, unlike_layers).map(lambda layers: layers[:6])


def plan_of(spec, work, budget, planner="even", objective=Objective.TOTAL, seed=0):
    return make_plan(
        spec, work, budget, SPEEDS, planner=planner, objective=objective, seed=seed, planner_s=BRIEFLY_S
    )  # fmt: skip


def plan_or_none(spec, work, budget, planner="even", *args):
    """``None`` where nothing fits; where ``exhaustive`` has too much to try, another example is taken."""
    try:
        return plan_of(spec, work, budget, planner, *args)
    except PlanError:
        return None
    except UsageError:
        assume(planner != "exhaustive")
        raise


@settings(deadline=None, max_examples=24)
@given(cases(few_layers), planners, objectives)
def test_a_plan_keeps_every_budget_and_says_what_it_takes(case, planner, objective):
    spec, work, budget = case
    plan = plan_or_none(spec, work, budget, planner, objective)
    if plan is None:
        return
    slots = plan.slots
    assert [placement.unit for placement in plan.placements] == [unit.name for unit in spec.units]
    assert plan.memory == account(spec, work, budget, plan.placements, slots)
    assert plan.rings == rings(spec, plan.placements, slots)
    for memory in plan.memory:
        assert memory.nbytes <= memory.budget_bytes == budget.on(memory.device)
        assert plan.prediction.peak_bytes.get(memory.device, 0) <= memory.nbytes
    for placement in plan.placements:
        assert placement.home in (DISK, CPU, placement.device)
    assert 0 < plan.certificate.bound_s <= plan.certificate.seconds * (1 + 1e-9)
    assert plan.prediction == predict_plan(spec, plan, SPEEDS, work)
    assert plan_from_json(plan_to_json(plan)) == plan == check_plan(plan, spec, SPEEDS.host, budget)


@settings(deadline=None, max_examples=6)
@given(cases(few_layers), planners, st.integers(0, 99))
def test_the_same_question_gets_the_same_answer_byte_for_byte(case, planner, seed):
    spec, work, budget = case
    backwards = Budget(budget.ram_bytes, dict(reversed(budget.vram_bytes.items())))
    one = plan_or_none(spec, work, budget, planner, Objective.TOTAL, seed)
    other = plan_or_none(replace(spec), replace(work), backwards, planner, Objective.TOTAL, seed)
    assert (one and plan_to_json(one)) == (other and plan_to_json(other))


@settings(deadline=None, max_examples=5)  # more of it in test_searches.py
@given(cases(few_layers, lowest=0.2), objectives, st.integers(0, 9))
def test_ants_find_nothing_worse_than_the_others(case, objective, seed):
    found = {name: plan_or_none(*case, name, objective, seed) for name in ("aco", "greedy", "even")}
    assert len({plan is None for plan in found.values()}) == 1
    if found["aco"]:
        seconds = {name: plan.certificate.seconds for name, plan in found.items()}
        assert seconds["aco"] == min(seconds.values())
        assert len({plan.certificate.bound_s for plan in found.values()}) == 1


@settings(deadline=None, max_examples=12)
@given(model_of(st.one_of(equal_layers, unlike_layers)), works, st.integers(0, GIB), vrams)
def test_the_hint_is_true(spec, work, ram_bytes, vram_bytes):
    try:
        plan_of(spec, work, Budget(ram_bytes, vram_bytes))
    except PlanError as error:
        hint = error.hint or ""
    else:
        return
    context = re.fullmatch(r"`--context (\d+)` is the longest context that fits", hint)
    ram = re.fullmatch(r"`--ram (\d+)MiB` is enough for this context", hint)
    if context:
        longest, longer = (replace(work, context_tokens=int(context[1]) + more) for more in (0, 256))
        assert plan_or_none(spec, longest, Budget(ram_bytes, vram_bytes))
        assert longer.context_tokens > work.context_tokens or not plan_or_none(
            spec, longer, Budget(ram_bytes, vram_bytes)
        )
    else:
        assert ram, hint
        assert plan_or_none(spec, work, Budget(int(ram[1]) * MIB, vram_bytes))
        assert not plan_or_none(spec, work, Budget((int(ram[1]) - 1) * MIB, vram_bytes))
