"""What the live view leaves on a terminal, while it works and afterwards."""

import io
import threading
import time

import pytest
from hosts import SPEEDS
from made_runs import decode, facts_of, fold, on_cpu
from small_terminal import SmallTerminal

from llmrun.events import Accepted, MemorySample, Token
from llmrun.tui.dashboard.lines import Lines
from llmrun.tui.frame import Frame
from llmrun.tui.live import LiveView, live_view
from llmrun.tui.ui import Ui


@pytest.fixture(autouse=True)
def _window(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")


@pytest.fixture
def terminal():
    return SmallTerminal()


def view_on(terminal, ui=Ui.DASHBOARD, **settings):
    return live_view(ui, *on_cpu(), SPEEDS, terminal, **settings)


def drawers():
    return [thread for thread in threading.enumerate() if thread.name == "drawer"]


def shows(terminal, text):
    """Waits until the text stands on the terminal."""
    until_s = time.monotonic() + 30
    while text not in terminal.screen:
        assert time.monotonic() < until_s, terminal.screen
        time.sleep(0.01)


def test_dashboard_is_drawn_and_gone_afterwards(terminal):
    terminal.write("before\n")
    with view_on(terminal) as view:
        for event in decode():
            view.apply(event)
        shows(terminal, "0.453 mean")
        assert drawers()
        shows(terminal, "computing     layer 10 on cpu")
    assert terminal.screen == "before\n"


def test_simple_is_one_line(terminal):
    with view_on(terminal, Ui.SIMPLE) as view:
        view.note = "tg128"
        for event in decode():
            view.apply(event)
        shows(terminal, "tg128  40 tokens  0.453 tok/s (0.256 predicted)")
        assert len(terminal.rows) == 1
    assert terminal.screen == ""


@pytest.mark.parametrize("ui", Ui)
def test_nothing_is_drawn_in_a_pipe(ui):
    pipe = io.StringIO()
    with view_on(pipe, ui) as view:
        for event in decode():
            view.apply(event)
        assert view.state == fold(decode())
        assert not drawers()
    assert pipe.getvalue() == ""


@pytest.mark.parametrize(("ui", "term"), [(Ui.DASHBOARD, "dumb"), (Ui.NONE, "xterm")])
def test_nothing_is_drawn_where_it_cannot_or_must_not(terminal, monkeypatch, ui, term):
    monkeypatch.setenv("TERM", term)
    with view_on(terminal, ui):
        assert not drawers()
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_the_terminal_is_left_clean_by_an_exception(terminal, error):
    def fail():
        with view_on(terminal):
            shows(terminal, "starting")
            raise error

    with pytest.raises(error):
        fail()
    assert terminal.screen == ""
    assert not drawers()
    assert "?25" not in terminal.getvalue()  # the cursor was never hidden


def test_an_answer_is_streamed_above(terminal):
    with view_on(terminal, holds_text=True) as view:
        view.write_text(terminal.write, "One line.\nAnother ")
        shows(terminal, "One line.\nAnother \nstarting")
        view.write_text(terminal.write, "that goes on\tand\x1b[2J on" + 7 * " and on and on")
        shows(terminal, "and[2J on")
        view.write_text(terminal.write, ".\nLast")
        shows(terminal, ".\nLast\nstarting")
    assert terminal.rows[0] == "One line."
    assert terminal.rows[-1] == "Last"


def test_an_answer_that_goes_elsewhere_is_not_held(terminal):
    written = []
    with view_on(terminal) as view:
        view.write_text(written.append, "no line end")
        assert written == ["no line end"]


def test_text_is_written_though_the_terminal_is_gone(terminal):
    def gone(text):
        raise OSError

    terminal.write, written = gone, []
    with view_on(terminal, holds_text=True) as view:
        view.write_text(written.append, "Paris.")
    assert written == ["Paris."]


def test_room_for_other_text(terminal):
    with view_on(terminal) as view:
        shows(terminal, "starting")
        with view.paused():
            assert terminal.screen == ""
            terminal.write("| a row |\n")
        shows(terminal, "| a row |\nstarting")
    assert terminal.screen == "| a row |\n"


def test_a_request_begins_with_figures_of_its_own():
    view = LiveView(Ui.NONE, facts_of(on_cpu()), io.StringIO())
    sample = MemorySample(2.0, "cpu", 1, 2, 3)
    for event in (Accepted(1.0, 3, 0), Token(2.0, 1, ""), sample, Accepted(3.0, 5, 0)):
        view.apply(event)
    assert (view.state.prompt_tokens, view.state.new_tokens, view.state.memory) == (5, 0, {"cpu": sample})


def test_a_window_made_narrower_breaks_the_lines_that_stand_there(monkeypatch, terminal):
    frame = Frame(terminal)
    frame.draw(Lines(tuple(((text, ""),) for text in ("a" * 70, "b" * 20, "c" * 41))))
    monkeypatch.setenv("COLUMNS", "40")
    before = len(terminal.getvalue())
    terminal.rows += [""] * 2  # the terminal breaks 70 columns into two rows, and 41 too
    terminal.row += 2
    frame.erase()
    assert terminal.getvalue()[before:] == "\r\x1b[4A\x1b[J"
    assert terminal.screen == ""


def test_fewer_lines_leave_nothing_of_the_others(terminal):
    frame = Frame(terminal)
    for texts in (["one", "two, longer", "three"], ["1", "2"], ["uno", "dos", "tres", "cuatro"], ["end"]):
        frame.draw(Lines(tuple(((text, ""),) for text in texts)))
        assert terminal.screen == "\n".join(texts)
    frame.erase()
    frame.erase()
    assert terminal.screen == ""
