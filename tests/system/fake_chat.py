"""The real command line with an engine that is not there: ``fake_chat.py MODE``, then the arguments of ``llmrun``."""

import itertools
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import typer
from fake_engine import FakeEngine, starts

from llmrun.cli import app as app_module
from llmrun.cli.chat import ChatSettings, run_chat
from llmrun.cli.run import RunSettings
from llmrun.settings import SamplingSettings
from llmrun.tui.ui import Ui


def slowly(text):
    """The first characters at once, then one in a while, for ever."""
    yield from text
    while True:
        time.sleep(0.02)
        yield "."


def stopped_by_itself():
    yield from "Paris"
    os.kill(os.getpid(), signal.SIGINT)
    yield from slowly("")


ANSWERS = {
    "stopped": stopped_by_itself,
    "endless": lambda: slowly("Paris"),
    "flood": lambda: itertools.cycle("word "),
    "short": lambda: "Paris.",
}


def chat(mode: str, stats: bool = False, json: bool = False, ui: str = "simple") -> None:
    if mode == "bug":
        raise ZeroDivisionError("division by zero")
    engine = FakeEngine([ANSWERS[mode]()])
    settings = ChatSettings(RunSettings(), SamplingSettings(), prompt="Where?", stats=stats, json=json, ui=Ui(ui))
    run_chat(settings, starts(engine))


app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(chat)
sys.exit(app_module.main(app=app))
