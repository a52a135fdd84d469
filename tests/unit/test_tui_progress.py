import io

import pytest

from llmrun.events import Accepted, BytesRead, PrefillProgress
from llmrun.metrics import MetricsState, apply
from llmrun.tui.progress import ProgressLine, progress_text
from llmrun.units import GIB


class Terminal(io.StringIO):
    def isatty(self):
        return True


def state(*events):
    result = MetricsState()
    for event in events:
        result = apply(result, event)
    return result


BEGAN = state(Accepted(100.0, 520, 8), BytesRead(100.0, "disk", 1 * GIB))
HALF = state(
    Accepted(100.0, 520, 8), BytesRead(100.0, "disk", 1 * GIB), BytesRead(103.0, "disk", 6 * GIB),
    PrefillProgress(103.0, 5, 20, 520),
)  # fmt: skip


def test_text_tells_how_far_how_fast_and_how_long_still():
    text = progress_text(HALF, 103.0, 3.0, 2 * GIB)
    assert text == "reading 512 tokens  ━━━━━───────────────  25%  7.0 GiB  2.0 GiB/s  about 9.0 s left"


def test_text_before_the_first_unit_tells_the_time():
    assert progress_text(BEGAN, 102.0, 2.0, None) == "reading 512 tokens  1.0 GiB  2 s"
    assert progress_text(MetricsState(), 2.0, 2.0, None) == "reading the model  2 s"


@pytest.mark.parametrize("done", range(21))
def test_text_fits_a_line(done):
    long = state(Accepted(0.0, 131072, 0), BytesRead(0.0, "disk", 999 * GIB), PrefillProgress(1.0, done, 20, 131072))
    assert len(progress_text(long, 9999.0, 9999.0, 99 * GIB)) < 100


def test_nothing_is_drawn_in_a_pipe():
    pipe = io.StringIO()
    with ProgressLine(pipe) as line:
        line.begin("starting")
        line.update(HALF)
    assert pipe.getvalue() == ""


def test_nothing_is_drawn_on_a_dumb_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    with ProgressLine(terminal) as line:
        line.begin("starting")
    assert terminal.getvalue() == ""


def test_line_appears_after_a_second_and_is_erased(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    now_s = [0.0]
    terminal = Terminal()
    with ProgressLine(terminal, clock=lambda: now_s[0]) as line:
        line.begin("starting fake:1b")
        assert line.text() == ""
        now_s[0] = 3.0
        assert line.text() == "starting fake:1b  3 s"
        line.update(BEGAN)
        now_s[0] = 5.0
        assert line.text() == "reading 512 tokens  1.0 GiB  5 s"
        line.update(apply(BEGAN, BytesRead(105.0, "disk", 6 * GIB)))
        assert line.text() == "reading 512 tokens  7.0 GiB  3.0 GiB/s  5 s"
    assert terminal.getvalue().endswith("\x1b[2K")  # erases the line it stands on
    shown = terminal.getvalue()
    line.erase()
    assert terminal.getvalue() == shown
