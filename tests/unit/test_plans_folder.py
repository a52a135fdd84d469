"""Plans in files: which saved one a run takes, and which it leaves."""

from dataclasses import replace

import pytest
from test_plan_file import BUDGET, CERTIFICATE, HOST, SPEC, plan
from tiny_spec import model

from llmrun.cli.plans_folder import load_plan, save_plan, saved_path, saved_plan, write_whole
from llmrun.errors import LlmrunError
from llmrun.planner.plan_file import plan_to_json
from llmrun.settings import Budget, Precision, Quality
from llmrun.units import GIB, MIB

CONTEXT = plan().workload.context_tokens
NOTHING = (None, None)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def saved(budget=BUDGET, **asked):
    return saved_plan(SPEC, HOST, budget, CONTEXT, **asked)


def test_what_was_saved_is_found_by_any_name_of_the_model(cache):
    path = save_plan(plan(), SPEC)
    assert path.parent == cache / "plans"
    found, note = saved_plan(replace(SPEC, name="other", folder="/moved"), HOST, BUDGET, CONTEXT)
    assert found == plan()
    assert "llmrun plan" in note


def test_the_last_one_counts_and_nothing_else_is_left_there():
    save_plan(plan(), SPEC)
    later = plan(planner="greedy")
    path = save_plan(later, SPEC)
    assert saved()[0] == later
    assert list(path.parent.iterdir()) == [path]


def test_another_model_host_or_context_has_none():
    save_plan(plan(), SPEC)
    assert saved_plan(model([100 * MIB] * 4), HOST, BUDGET, CONTEXT) == NOTHING
    assert saved_plan(SPEC, "a server", BUDGET, CONTEXT) == NOTHING
    assert saved_plan(SPEC, HOST, BUDGET, CONTEXT + 1) == NOTHING


def test_a_little_more_or_less_memory_is_the_same_but_much_more_is_not():
    save_plan(plan(), SPEC)
    assert saved(Budget(BUDGET.ram_bytes * 21 // 20, {"gpu:0": 2 * GIB}))[0].placements == plan().placements
    assert saved(Budget(BUDGET.ram_bytes * 3 // 4, {"gpu:0": 2 * GIB}))[0].placements == plan().placements
    for more in (Budget(5 * GIB, {"gpu:0": 2 * GIB}), Budget(4 * GIB, {"gpu:0": 2 * GIB, "gpu:1": GIB})):
        found, note = saved(more)
        assert found is None
        assert "more memory" in note


@pytest.mark.parametrize("budget", [Budget(GIB // 2, {"gpu:0": 2 * GIB}), Budget(4 * GIB)])
def test_less_than_it_takes_is_told(budget):
    save_plan(plan(), SPEC)
    found, note = saved(budget)
    assert found is None
    assert note.startswith("the saved plan is not used: the plan ")


def test_another_planner_or_goal_than_the_asked_one_is_left():
    save_plan(plan(certificate=replace(CERTIFICATE, objective="ttft")), SPEC)
    assert saved(planner="aco", objective="ttft")[0]
    assert "aco" in saved(planner="greedy")[1]
    assert "ttft" in saved(objective="total")[1]


def test_a_damaged_one_is_told_and_not_used():
    path = save_plan(plan(), SPEC)
    for content in (b"", b"\xff\xfe", plan_to_json(plan()).replace('"schema": 4', '"schema": 1').encode()):
        path.write_bytes(content)
        found, note = saved()
        assert found is None
        assert note


def test_a_cache_that_cannot_be_written_is_no_failure(cache):
    cache.write_text("a file where the folder should be")
    assert save_plan(plan(), SPEC) is None
    assert saved() == NOTHING


def test_a_plan_file_is_checked(tmp_path):
    path = tmp_path / "plan.json"
    write_whole(path, plan_to_json(plan()))
    assert load_plan(path, SPEC, HOST, BUDGET) == plan()
    with pytest.raises(LlmrunError) as caught:
        load_plan(path, SPEC, "a server", BUDGET)
    assert caught.value.reference == "plan-other-hardware"


@pytest.mark.parametrize(
    ("content", "reference"), [(None, "file-unreadable"), (b"\xff", "not-text"), (b"{}", "bad-plan-file")]
)
def test_a_plan_file_that_cannot_be_read(tmp_path, content, reference):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LlmrunError) as caught:
        load_plan(path, SPEC, HOST, BUDGET)
    assert caught.value.reference == reference
    assert str(path) in caught.value.message


def test_a_write_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(OSError, match=r"plan\.json"):
        write_whole(tmp_path / "plan.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_the_file_is_the_same_for_the_same_run():
    assert saved_path(SPEC, HOST, 1) == saved_path(replace(SPEC, name="x"), HOST, 1) != saved_path(SPEC, HOST, 2)


def test_a_plan_for_other_formats_is_left():
    for made in (Precision(), Precision(format="q4")):
        save_plan(plan(precision=made), SPEC)
        assert saved(precision=made)[0].precision == made
        found, note = saved(precision=Precision(Quality.SMALL))
        assert found is None
        assert made.words in note
