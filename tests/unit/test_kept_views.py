"""What people are told of a plan that keeps weights in fewer bits."""

import io

import pytest
from hosts import SPEEDS
from tiny_spec import model

from llmrun.bench.case import Case
from llmrun.bench.ceiling import ceiling
from llmrun.bench.figures import model_type
from llmrun.planner.make import make_plan
from llmrun.settings import LOSSLESS, Budget, Precision, Quality, Workload
from llmrun.tui.about import about_text, placed_bytes
from llmrun.tui.dashboard.facts import facts
from llmrun.tui.plan_view import show_plan
from llmrun.units import GIB, MIB

SPEC = model([100 * MIB] * 4, columns=256)
WORK = Workload(context_tokens=1024, prompt_tokens=64, new_tokens=200)


def planned(precision, ram_bytes=4 * GIB):
    return make_plan(SPEC, WORK, Budget(ram_bytes), SPEEDS, planner_s=0.05, precision=precision)


PLAIN, SMALL = planned(LOSSLESS), planned(Precision(Quality.BALANCED, "q4"))


def test_the_view_of_a_plan():
    shown = io.StringIO()
    show_plan(shown, SPEC, SMALL, "a host")
    text = shown.getvalue()
    assert "precision     q4 in RAM, quality balanced" in text
    assert "layer 0       4444" in text
    assert "4  in RAM in q4, computed on the CPU" in text
    assert "rounding" in {line.label for line in SMALL.memory[0].lines}
    assert "precision" not in about_text(SPEC, PLAIN)
    assert PLAIN.precision_words == ""


def test_the_chat_and_the_dashboard():
    about = about_text(SPEC, SMALL)
    assert "in RAM (q4)" in about
    assert "precision           q4 in RAM, quality balanced" in about
    known = facts(SPEC, SMALL, SPEEDS)
    assert known.kind.endswith("BF16, q4 in RAM, quality balanced")
    assert [cell.letter for _, cell in known.layers] == ["4"] * 4
    (ram,) = (way.token_bytes for way in known.ways if way.label == "from RAM")
    assert ram == sum(placed_bytes(SPEC, p) for p in SMALL.placements if p.unit not in ("embedding", "rest"))


def test_a_row_of_a_benchmark():
    assert model_type(SPEC, PLAIN).endswith(" BF16")
    assert model_type(SPEC, SMALL) == f"{model_type(SPEC, PLAIN)}, q4 in RAM, quality balanced"


def test_the_ceiling_has_the_bytes_that_are_kept():
    case = Case(0, 64, 0)
    plain, small = (ceiling(SPEC, plan, SPEEDS, case).tokens_per_s for plan in (PLAIN, SMALL))
    assert small == pytest.approx(plain * 16 / 4.7, rel=0.1)  # a head of six bits among layers of four and a half
