import io

import pytest

from llmrun.errors import UsageError
from llmrun.tui.theme import has_unicode
from llmrun.tui.ui import Ui, resolve_ui


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _able(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize("default", Ui)
def test_the_default_where_nothing_is_said(default):
    assert resolve_ui(None, default, Terminal()) is default


@pytest.mark.parametrize(("text", "ui"), [("dashboard", Ui.DASHBOARD), (" Simple", Ui.SIMPLE), ("none", Ui.NONE)])
def test_what_is_asked(text, ui):
    assert resolve_ui(text, Ui.SIMPLE, Terminal()) is ui


@pytest.mark.parametrize("asked", [None, *Ui])
def test_nothing_in_a_pipe(asked):
    assert resolve_ui(asked, Ui.DASHBOARD, io.StringIO()) is Ui.NONE


@pytest.mark.parametrize("term", ["dumb", ""])
def test_no_dashboard_where_lines_cannot_be_redrawn(monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    assert resolve_ui("dashboard", Ui.NONE, Terminal()) is Ui.SIMPLE
    assert resolve_ui("none", Ui.DASHBOARD, Terminal()) is Ui.NONE


@pytest.mark.parametrize(("text", "hint"), [("dashbord", "`--ui dashboard`"), ("", "one of dashboard, simple, none")])
@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_unknown_views_are_refused_in_pipes_too(text, hint, stream):
    with pytest.raises(UsageError) as caught:
        resolve_ui(text, Ui.SIMPLE, stream)
    assert caught.value.reference == "bad-option"
    assert caught.value.hint == hint


@pytest.mark.parametrize(("encoding", "knows"), [("utf-8", True), ("ascii", False), ("latin-1", False)])
def test_signs_beyond_ascii(encoding, knows):
    assert has_unicode(io.TextIOWrapper(io.BytesIO(), encoding=encoding)) is knows
