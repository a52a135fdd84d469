"""What holds for every plan, whatever the model and the budget."""

import re
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_spec import model

from llmrun.checkpoint.spec import UnitKind
from llmrun.errors import PlanError
from llmrun.planner import PLANNERS, make_plan
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import CPU, DISK
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

sizes = st.integers(1, 300).map(lambda n: n * MIB)
unlike_layers = st.lists(sizes, min_size=1, max_size=10)
equal_layers = st.builds(lambda nbytes, count: [nbytes] * count, sizes, st.integers(1, 10))
works = st.builds(
    Workload,
    context_tokens=st.sampled_from([1, 255, 256, 1000, 4096, 32768]),
    prefill_chunk_tokens=st.sampled_from([1, 512]),
)
planners = st.sampled_from(sorted(PLANNERS))
rams = st.integers(400 * MIB, 5 * GIB)
vrams = st.dictionaries(st.sampled_from(["gpu:0", "gpu:1"]), st.integers(0, 4 * GIB))
# a GPU that is used at all has room for its context and one ring
roomy_vrams = st.dictionaries(st.sampled_from(["gpu:0", "gpu:1"]), st.just(0) | st.integers(7 * GIB // 2, 5 * GIB))
many = settings(deadline=None)


def specs(layers):
    kv_bytes = st.sampled_from([0, 1024, 16384])
    return st.builds(model, layers, sizes, tied=st.booleans(), kv_bytes_per_token=kv_bytes)


def plan_or_none(spec, work, budget, planner):
    try:
        return make_plan(spec, work, budget, planner=planner)
    except PlanError:
        return None


def read_bytes_per_token(spec, plan):
    """Bytes from disk for every token; of the embedding it is only rows."""
    homes = [(spec.unit(placement.unit), placement.home) for placement in plan.placements]
    return sum(unit.nbytes for unit, home in homes if home == DISK and unit.kind is not UnitKind.EMBEDDING)


@many
@given(specs(unlike_layers), works, rams, vrams, planners)
def test_a_plan_keeps_every_budget_and_says_what_it_takes(spec, work, ram_bytes, vram_bytes, planner):
    budget = Budget(ram_bytes, vram_bytes)
    plan = plan_or_none(spec, work, budget, planner)
    if plan is None:
        return
    assert [placement.unit for placement in plan.placements] == [unit.name for unit in spec.units]
    assert plan.memory == account(spec, work, budget, plan.placements)
    assert plan.rings == rings(spec, plan.placements)
    for memory in plan.memory:
        assert memory.nbytes <= memory.budget_bytes == budget.on(memory.device)
    for placement in plan.placements:
        assert placement.home in (DISK, CPU, placement.device)
        assert placement.device == CPU or vram_bytes[placement.device] > 0
    assert plan.placement("rest").resident


@many
@given(specs(unlike_layers), works, rams, rams)
def test_with_more_ram_greedy_reads_no_more(spec, work, one, other):
    assert_more_ram_reads_no_more(spec, work, one, other, {}, "greedy")


@many
@given(specs(equal_layers), works, rams, rams, roomy_vrams, planners)
def test_with_more_ram_equal_layers_are_read_no_more(spec, work, one, other, vram_bytes, planner):
    assert_more_ram_reads_no_more(spec, work, one, other, vram_bytes, planner)


def assert_more_ram_reads_no_more(spec, work, one, other, vram_bytes, planner):
    less, more = (
        plan_or_none(spec, work, Budget(ram_bytes, vram_bytes), planner) for ram_bytes in sorted((one, other))
    )
    if less:
        assert more
        assert read_bytes_per_token(spec, more) <= read_bytes_per_token(spec, less)


@many
@given(specs(equal_layers), works, rams, planners)
def test_both_planners_keep_as_much(spec, work, ram_bytes, planner):
    plans = [plan_or_none(spec, work, Budget(ram_bytes), planner) for planner in PLANNERS]
    assert len({plan and read_bytes_per_token(spec, plan) for plan in plans}) == 1


@many
@given(specs(unlike_layers), works, rams)
def test_even_streams_at_even_distances(spec, work, ram_bytes):
    plan = plan_or_none(spec, work, Budget(ram_bytes), "even")
    if plan is None:
        return
    layers = [placement for placement in plan.placements if placement.unit.startswith("layer")]
    streamed = [index for index, placement in enumerate(layers) if placement.home == DISK]
    if streamed:
        # round the circle, since the readers go on with the first layer of the next token
        gaps = [after - before for before, after in pairwise([*streamed, streamed[0] + len(layers)])]
        assert max(gaps) - min(gaps) <= 1


@many
@given(specs(unlike_layers), works, rams)
def test_greedy_streams_the_last_layers(spec, work, ram_bytes):
    plan = plan_or_none(spec, work, Budget(ram_bytes), "greedy")
    if plan:
        homes = [placement.home for placement in plan.placements if placement.unit.startswith("layer")]
        assert homes == sorted(homes)  # "cpu" before "disk"


@many
@given(specs(unlike_layers), works, st.integers(0, GIB), vrams, planners)
def test_the_hint_is_true(spec, work, ram_bytes, vram_bytes, planner):
    try:
        make_plan(spec, work, Budget(ram_bytes, vram_bytes), planner=planner)
    except PlanError as error:
        hint = error.hint or ""
    else:
        return
    context = re.fullmatch(r"`--context (\d+)` is the longest context that fits", hint)
    ram = re.fullmatch(r"`--ram (\d+)MiB` is enough for this context", hint)
    if context:
        longest, longer = (replace(work, context_tokens=int(context[1]) + more) for more in (0, 256))
        assert plan_or_none(spec, longest, Budget(ram_bytes, vram_bytes), planner)
        assert longer.context_tokens > work.context_tokens or not plan_or_none(
            spec, longer, Budget(ram_bytes, vram_bytes), planner
        )
    else:
        assert ram, hint
        assert plan_or_none(spec, work, Budget(int(ram[1]) * MIB, vram_bytes), planner)


@settings(deadline=None, max_examples=30)  # where nothing fits, the hint is searched for twice
@given(specs(unlike_layers), works, rams, vrams, planners)
def test_the_same_question_gets_the_same_answer(spec, work, ram_bytes, vram_bytes, planner):
    backwards = dict(reversed(vram_bytes.items()))
    one = plan_or_none(spec, work, Budget(ram_bytes, vram_bytes), planner)
    other = plan_or_none(replace(spec), replace(work), Budget(ram_bytes, backwards), planner)
    assert one == other
