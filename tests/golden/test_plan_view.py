"""What ``llmrun plan`` prints, word for word, at three widths. To renew after a change: LLMRUN_WRITE_GOLDEN=1."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from golden_files import held
from shapes import llama_8b, llama_70b
from tiny_spec import model

from llmrun.checkpoint.spec import ModelSpec
from llmrun.planner.compare import Comparison
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import Busy, Certificate, Drafting, Placement, Plan, Prediction
from llmrun.planner.what_if import Change, WhatIf
from llmrun.settings import Budget, Workload
from llmrun.tui.plan_view import show_plan
from llmrun.units import GIB, MIB

FOLDER = Path(__file__).parent
WORKSTATION = "AMD Ryzen 9 7950X, 64.0 GiB RAM, NVIDIA GeForce RTX 4090 24.0 GiB, disk 5.9 GiB/s"
LAPTOP = "laptop-16gib, Intel Core i5-1240P, 16.0 GiB RAM, disk 2.4 GiB/s"
GREEN, CYAN, YELLOW = "\x1b[32m", "\x1b[36m", "\x1b[33m"


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self):
        return True


def large() -> tuple[ModelSpec, Plan]:
    """70 B parameters: a part on the GPU, all the other ways of keeping a layer after it."""
    spec = llama_70b()
    ways = [("cpu", "gpu:0", None), ("disk", "cpu", "gpu:0"), ("disk", "gpu:0", None), ("cpu", "cpu", "gpu:0")]
    layers = [Placement(f"layer {n}", "gpu:0", "gpu:0") for n in range(12)]
    layers += [Placement(f"layer {n}", *ways[n % 3]) for n in range(12, 70)]
    layers += [Placement(f"layer {n}", *ways[3]) for n in range(70, 75)]
    layers += [Placement(f"layer {n}", "cpu" if n % 2 else "disk", "cpu") for n in range(75, 80)]
    placements = [Placement("embedding", "disk", "cpu"), Placement("rest", "cpu", "cpu"), *layers]
    prediction = Prediction(
        startup_s=8.1,
        ttft_s=31.2,
        warm_ttft_s=28.4,
        tpot_s=2.38,
        bytes_per_token={"cpu": 46 * GIB, "disk": 65 * GIB, "gpu:0": 19 * GIB},
        busy=(Busy("disk", 2.36), Busy("link gpu:0", 1.1), Busy("cpu", 1.51), Busy("gpu:0", 0.0031)),
        peak_bytes={"cpu": 55 * GIB, "gpu:0": 21 * GIB},
    )
    certificate = Certificate("total", 638.1, 637.2, 7, 2000)
    budget = Budget(57 * GIB, {"gpu:0": 22 * GIB})
    return spec, _plan(spec, [*placements, Placement("head", "cpu", "cpu")], budget, prediction, certificate)


def resident() -> tuple[ModelSpec, Plan]:
    """Everything in RAM, computed there; the embedding is the head's."""
    spec = model([100 * MIB] * 30, tied=True)
    prediction = Prediction(
        3.0, 0.8, 0.35, 0.0091, {"cpu": 3 * GIB}, (Busy("disk", 0.0), Busy("cpu", 0.009)), {"cpu": 4 * GIB}
    )
    placements = [Placement(unit.name, "cpu", "cpu") for unit in spec.units]
    return spec, _plan(spec, placements, Budget(12 * GIB), prediction, Certificate("tpot", 0.0091, 0.0091, 0, 31))


def by_hand() -> tuple[ModelSpec, Plan]:
    """A plan that says nothing of time; nine GPUs; a name that looks like markup."""
    spec = replace(model([10 * MIB] * 12), name="[bold]:smile: model[/bold]")
    gpus = [f"gpu:{n}" for n in range(10)]
    layers = [Placement(f"layer {n}", gpu, gpu) for n, gpu in enumerate(gpus)]
    layers += [Placement("layer 10", "disk", "cpu"), Placement("layer 11", "cpu", "cpu")]
    ends = [Placement("embedding", "disk", "cpu"), Placement("rest", "cpu", "cpu")]
    placements = [*ends, *layers, Placement("head", "cpu", "cpu")]
    plan = _plan(spec, placements, Budget(2 * GIB, dict.fromkeys(gpus, GIB)), None, None)
    return spec, replace(plan, planner="by hand", workload=replace(plan.workload, batch=4))


def eight() -> tuple[ModelSpec, Plan]:
    """8 B parameters on a laptop, every third layer streamed."""
    spec = llama_8b()
    layers = [Placement(f"layer {n}", "disk" if n % 3 == 1 else "cpu", "cpu") for n in range(32)]
    ends = [Placement("embedding", "disk", "cpu"), Placement("rest", "cpu", "cpu")]
    prediction = Prediction(
        4.2,
        12.0,
        9.0,
        1.94,
        {"cpu": 10 * GIB, "disk": 5 * GIB},
        (Busy("disk", 1.9), Busy("cpu", 1.7)),
        {"cpu": 12 * GIB},
    )
    plan = _plan(
        spec,
        [*ends, *layers, Placement("head", "cpu", "cpu")],
        Budget(13 * GIB),
        prediction,
        Certificate("total", 506.7, 500.0, 0, 2000),
    )
    return spec, plan


def drafting() -> tuple[ModelSpec, Plan]:
    """The same, with copies of what is streamed."""
    spec, plan = eight()
    placements = [
        replace(one, substitute="q4") if one.home == "disk" and one.unit != "embedding" else one
        for one in plan.placements
    ]
    drafts = Drafting(8, 0.8, 1.2, 4.1, 6.5, 1.94)
    prediction = replace(
        plan.prediction,
        tpot_s=4.1 / drafts.tokens_per_pass,
        bytes_per_token={"cpu": 2 * GIB, "disk": GIB},
        busy=(Busy("disk", 0.9), Busy("cpu", 0.6)),
        drafting=drafts,
    )
    return spec, _plan(spec, placements, Budget(13 * GIB), prediction, plan.certificate)


def comparisons() -> list[Comparison]:
    _, plan = large()
    slower = replace(plan, certificate=Certificate("total", 812.0, 637.2, 7, 1))
    reason = "7 ** 81 placements are too many to try: at most 300,000 are"
    return [Comparison("aco", plan), Comparison("greedy", slower), Comparison("exhaustive", None, reason)]


def what_ifs() -> list[WhatIf]:
    _, plan = large()
    prediction = plan.prediction
    faster = replace(prediction, tpot_s=1.98, ttft_s=26.0)
    texts = {"ram_plus_8_gib": "8 GiB more RAM", "disk_twice_as_fast": "a disk twice as fast"}
    found = [WhatIf(Change(name, text, None), faster) for name, text in texts.items()]
    return [*found, WhatIf(Change("half_the_context", "half the context, 2,048 tokens", None), None)]


def _plan(spec, placements, budget, prediction, certificate):
    return Plan(
        model=spec.name,
        planner="aco",
        workload=Workload(),
        placements=tuple(placements),
        rings=rings(spec, placements),
        memory=account(spec, Workload(), budget, placements),
        prediction=prediction,
        certificate=certificate,
    )


CASES = {
    "plan_large": lambda stream: show_plan(stream, *large(), WORKSTATION),
    "plan_why": lambda stream: show_plan(stream, *large(), WORKSTATION, comparisons(), what_ifs()),
    "plan_resident": lambda stream: show_plan(stream, *resident(), LAPTOP),
    "plan_laptop": lambda stream: show_plan(stream, *eight(), LAPTOP),
    "plan_drafts": lambda stream: show_plan(stream, *drafting(), LAPTOP, None, what_ifs()),
    "plan_by_hand": lambda stream: show_plan(stream, *by_hand(), LAPTOP),
}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def drawn(name: str, stream: io.StringIO) -> str:
    CASES[name](stream)
    return stream.getvalue()


def uncoloured(text: str) -> str:
    return "\n".join(line.rstrip() for line in re.sub("\x1b\\[[0-9;]*m", "", text).split("\n"))


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", CASES)
def test_text_is_as_it_was(name, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = drawn(name, io.StringIO())
    held(text, FOLDER / f"{name}_{width}.txt")
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii()
    assert text.splitlines() == [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("name", CASES)
def test_a_pipe_is_80_columns_wide_and_plain(name):
    assert drawn(name, io.StringIO()) == (FOLDER / f"{name}_80.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_colours_say_nothing_that_letters_do_not(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = drawn(name, Terminal())
    assert CYAN in text
    assert uncoloured(text) == (FOLDER / f"{name}_80.txt").read_text(encoding="utf-8")


def test_the_map_is_coloured_by_home(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = drawn("plan_large", Terminal())
    assert f"{GREEN}G" in text
    assert f"{YELLOW}D" in text
    assert f"{CYAN}R" in text


def test_no_color_is_obeyed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    text = drawn("plan_large", Terminal())
    assert not any(colour in text for colour in (GREEN, CYAN, YELLOW))
    assert uncoloured(text) == (FOLDER / "plan_large_80.txt").read_text(encoding="utf-8")
