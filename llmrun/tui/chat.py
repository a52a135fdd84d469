"""The chat screen: reads a message, carries out commands, shows the answer, until the user leaves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llmrun.errors import LlmrunError
from llmrun.events import Event
from llmrun.tui import theme
from llmrun.tui.answer import View, Write, show_answer
from llmrun.tui.commands import COMMANDS, Talk, run_command
from llmrun.tui.progress import ProgressLine
from llmrun.tui.stats import stats_text, status_text

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output import Output

ReadMessage = Callable[[], str]
OpenView = Callable[[], AbstractContextManager[View]]
QUOTES = '"""'


@contextmanager
def progress_line(*, wanted: bool = True) -> Iterator[View]:
    """A line until the answer begins."""
    with ProgressLine(wanted=wanted) as line:
        line.begin("waiting")
        yield line


def chat_loop(
    talk: Talk, read_message: ReadMessage, write: Write, note: Write, open_view: OpenView = progress_line
) -> None:
    """Talk until the user leaves; an error ends the turn, not the conversation.

    Args:
        talk: the conversation.
        read_message: the next message; raises EOFError to leave, KeyboardInterrupt to drop a half-written one.
        write: takes the answer.
        note: takes a line of everything else.
        open_view: what is drawn while an answer comes.
    """
    while True:
        try:
            message = unquoted(read_message())
            if message and not _turn(talk, message, write, note, open_view):
                return
        except EOFError:
            return
        except KeyboardInterrupt:
            continue
        except LlmrunError as error:
            note(error.render())


def _turn(talk: Talk, message: str, write: Write, note: Write, open_view: OpenView) -> bool:
    """Carry out a message; whether to go on."""
    if not message.startswith("/"):
        _answer(talk, talk.session.ask(message), write, note, open_view)
        return True
    outcome = run_command(talk, message)
    if outcome.say:
        note(outcome.say)
    if outcome.ask is not None:
        _answer(talk, talk.session.ask(outcome.ask), write, note, open_view)
    if outcome.regenerate:
        _answer(talk, talk.session.regenerate(), write, note, open_view)
    return not outcome.leave


def _answer(talk: Talk, events: Generator[Event, None, None], write: Write, note: Write, open_view: OpenView) -> None:
    try:
        with open_view() as view:
            talk.last = show_answer(events, write, view)
    finally:
        write("\n")
    if talk.show_stats:
        note(stats_text(talk.last))
    elif talk.show_status:
        note(status_text(talk.last))


def is_open(text: str) -> bool:
    """Whether a message of several lines has begun and not ended: Enter then makes a new line."""
    begun = text.lstrip().startswith((QUOTES, "/"))
    return begun and text.count(QUOTES) % 2 == 1


def unquoted(text: str) -> str:
    """The message without the quotes around it."""
    text = text.strip()
    if text.startswith(QUOTES):
        text = text.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
    return text


def _history(path: Path) -> History:
    """History in a file, or in memory where the file cannot be written; only its user may read it."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)


def note_to_stderr() -> Write:
    """A ``note`` that writes dimmed lines to standard error."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stderr, highlight=False)
    console.soft_wrap = not console.is_terminal  # lines are broken between words for people only
    return lambda text: console.print(Text(text, style=theme.DIM))


def terminal_reader(history: Path, keyboard: Input | None = None, screen: Output | None = None) -> ReadMessage:
    """Reads messages with prompt_toolkit: history, Tab for commands, Ctrl-C and Ctrl-D as ``chat_loop`` expects them.

    Args:
        history: file of what was typed before.
        keyboard: where keys come from; the terminal by default.
        screen: where the prompt is drawn; by default a terminal among standard output and standard error.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.output import create_output

    session: PromptSession[str] = PromptSession(
        history=_history(history),
        multiline=Condition(lambda: is_open(get_app().current_buffer.text)),
        prompt_continuation="... ",
        completer=WordCompleter([f"/{command.name}" for command in COMMANDS], sentence=True),
        complete_while_typing=False,
        key_bindings=_keys(),
        input=keyboard,
        output=screen or create_output(always_prefer_tty=True),
    )
    return lambda: session.prompt(">>> ")


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("c-c")
    def drop_or_leave(event: KeyPressEvent) -> None:
        event.app.exit(exception=KeyboardInterrupt if event.current_buffer.text else EOFError)

    return keys
