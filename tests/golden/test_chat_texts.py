"""What ``llmrun chat`` prints beside the answer, word for word. To renew after a change: LLMRUN_WRITE_GOLDEN=1."""

import os
from pathlib import Path

import pytest
from fake_engine import plan, spec
from golden_files import held
from made_runs import decode, facts_of, on_cpu

from llmrun.events import Accepted, BytesRead, Expected, Finished, FinishReason, MemorySample, Speculated, Stall, Token
from llmrun.metrics import MetricsState, apply
from llmrun.tui.about import about_text
from llmrun.tui.stats import stats_text, status_text
from llmrun.tui.whole_stats import whole_stats_text
from llmrun.units import GIB, MIB

FOLDER = Path(__file__).parent


def fold(*events):
    state = MetricsState()
    for event in events:
        state = apply(state, event)
    return state


def streamed():
    """8 GiB through 2.5 GiB: 64 tokens of 4 s each, 7.2 GiB read for every one."""
    events = [
        Accepted(0.0, 1535, 1024),
        BytesRead(5.0, "disk", 8 * GIB),
        Stall(5.0, "layer 3", 4.5),
        Token(6.0, 1, "a"),
    ]
    for index in range(1, 64):
        events += [
            BytesRead(6.0 + 4 * index, "disk", int(7.2 * GIB)),
            Stall(6.0 + 4 * index, "layer 3", 3.6),
            Token(6.0 + 4 * index, 1, "a"),
        ]
    memory = MemorySample(258.0, "cpu", 2300 * MIB, 2432 * MIB, 2560 * MIB)
    return fold(*events, memory, Finished(258.0, FinishReason.LENGTH))


def predicted():
    """The same, with what the plan said of it."""
    return apply(streamed(), Expected(258.0, 5.6, 3.9, {"disk": int(7.2 * GIB)}, {"cpu": 2400 * MIB}))


def on_gpu():
    """Weights in RAM, streamed to a GPU."""
    events = [Accepted(0.0, 20, 0), BytesRead(0.5, "disk", 13 * GIB), Token(1.5, 1, "a")]
    events += [BytesRead(1.7, "cpu", 4 * GIB), Token(1.75, 2, "b"), Token(2.0, 3, "c")]
    samples = [
        MemorySample(2.0, "cpu", 9 * GIB, 10 * GIB, 16 * GIB),
        MemorySample(2.0, "gpu:0", 5 * GIB, 6 * GIB - MIB, 6 * GIB),
    ]
    return fold(*events, *samples, Finished(2.0, FinishReason.STOP))


def drafted():
    """Three passes give eight tokens."""
    events = [Accepted(0.0, 20, 0), Token(1.0, 1, "a")]
    for at_s, drafts, right in ((3.0, 0, 0), (5.1, 4, 4), (7.2, 4, 1)):
        events += [Token(at_s, 1, "a")] * (right + 1)
        events.append(Speculated(at_s, drafts, right, 0.02 * drafts, 2.0))
    return fold(*events, Finished(7.2, FinishReason.LENGTH))


def drafted_by_plan():
    """The same, with what the plan said of it."""
    return apply(drafted(), Expected(7.2, 1.1, 0.8, {"disk": GIB}, {"cpu": 2400 * MIB}, 3.4, 2.0))


def resident():
    """Reads nothing after the first pass."""
    tokens = [Token(0.2 + 0.004 * index, 1, "a") for index in range(300)]
    return fold(Accepted(0.0, 8, 0), BytesRead(0.1, "disk", 256 * MIB), *tokens, Finished(1.4, FinishReason.STOP))


CASES = {
    "stats_streamed": lambda: stats_text(streamed()),
    "stats_predicted": lambda: stats_text(predicted()),
    "stats_gpu": lambda: stats_text(on_gpu()),
    "stats_resident": lambda: stats_text(resident()),
    "stats_drafted": lambda: stats_text(drafted()),
    "stats_gained": lambda: stats_text(drafted_by_plan()),
    "stats_one_token": lambda: stats_text(fold(Accepted(0.0, 8, 0), Token(0.5, 1, "a"))),
    "stats_nothing": lambda: stats_text(MetricsState()),
    "status_streamed": lambda: status_text(streamed()),
    "status_predicted": lambda: status_text(predicted()),
    "status_wide": lambda: status_text(predicted(), 200),
    "status_one_token": lambda: status_text(fold(Accepted(0.0, 8, 0), Token(0.5, 1, "a"))),
    "about": lambda: about_text(spec(), plan()),
}


@pytest.mark.parametrize("name", CASES)
def test_text_is_as_it_was(name):
    text = CASES[name]() + "\n"
    golden = FOLDER / f"{name}.txt"
    if os.environ.get("LLMRUN_WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= (200 if name.endswith("wide") else 80)
    assert "\x1b" not in text


def test_whole_statistics_are_the_table_and_the_dashboard():
    text = whole_stats_text(fold(*decode()), facts_of(on_cpu()), 79, unicode=True)
    held(text + "\n", FOLDER / "stats_whole.txt")
