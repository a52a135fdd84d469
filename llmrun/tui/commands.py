"""The slash commands of the chat, as a table; known without a terminal.

A command gets the ``Talk`` and the text behind its name, and answers with an ``Outcome`` that the screen carries out.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmrun.engine.options import check_options
from llmrun.engine.session import Session
from llmrun.errors import UsageError
from llmrun.metrics import MetricsState
from llmrun.settings import SamplingSettings
from llmrun.tui.stats import stats_text


@dataclass
class Talk:
    """What the commands act on: the conversation and how it is shown."""

    session: Session
    about: str  # model, placement and memory, for /show
    last: MetricsState | None = None  # of the last answer
    show_stats: bool = False
    show_status: bool = True  # a line under each answer
    stats: Callable[[MetricsState], str] = stats_text  # what /stats says


@dataclass(frozen=True)
class Outcome:
    """What is to be done after a command."""

    say: str = ""
    ask: str | None = None
    regenerate: bool = False
    leave: bool = False


@dataclass(frozen=True)
class Command:
    """A slash command: how it is written, what it does."""

    name: str
    arguments: str
    help: str
    run: Callable[[Talk, str], Outcome]


def run_command(talk: Talk, line: str) -> Outcome:
    """Carry out a line that begins with ``/``.

    Raises:
        UsageError: unknown command, bad value, unreadable file.
    """
    name, _, rest = line[1:].strip().partition(" ")
    command = BY_NAME.get(name.lower())
    if command is None:
        nearest = difflib.get_close_matches(name.lower(), BY_NAME, n=1)
        hint = f"did you mean `/{nearest[0]}`?" if nearest else "`/help` lists the commands"
        raise UsageError("unknown-command", f"there is no command `/{name}`", hint=hint)
    return command.run(talk, rest.strip())


def read_text(path: Path) -> str:
    """The text of a file of the user's.

    Raises:
        UsageError: ``file-unreadable`` or ``not-text``.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError("file-unreadable", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError("not-text", f"{path} is not UTF-8 text (byte {error.start:,})") from None


def _help(talk: Talk, rest: str) -> Outcome:
    width = max(len(f"{command.name} {command.arguments}") for command in COMMANDS)
    lines = [f"  /{f'{command.name} {command.arguments}':<{width}}  {command.help}" for command in COMMANDS]
    lines.append('  """' + " " * (width - 2) + "  begins and ends a message of several lines")
    lines.append("  Ctrl-C" + " " * (width - 5) + "  stops the answer; at an empty prompt, leaves")
    return Outcome(say="\n".join(lines))


def _clear(talk: Talk, rest: str) -> Outcome:
    talk.session.clear()
    return Outcome(say="forgot the conversation")


def _system(talk: Talk, rest: str) -> Outcome:
    text = rest.strip('"').strip()
    talk.session.set_system(text)
    return Outcome(say="set the system prompt" if text else "took the system prompt away")


def _set(talk: Talk, rest: str) -> Outcome:
    """``NAME VALUE``, also as ollama writes it: ``parameter NAME VALUE``, ``system TEXT``, ``verbose``, ``think``."""
    name, _, value = rest.removeprefix("parameter ").strip().partition(" ")
    if name in SWITCHES:
        return SWITCHES[name](talk)
    if name == "system":
        return _system(talk, value)
    field = ALIASES.get(name, name.replace("-", "_"))
    if field not in PARSERS:
        known = ", ".join([*PARSERS, "system", *SWITCHES])
        raise UsageError("bad-option", f"/set: there is nothing called {name!r} to set", hint=f"one of {known}")
    talk.session.sampling = _with(talk.session.sampling, field, value.strip().strip('"'))
    return Outcome(say=f"{field} = {_shown(getattr(talk.session.sampling, field))}")


def _with(sampling: SamplingSettings, field: str, value: str) -> SamplingSettings:
    """The settings with a field set, or back at the model's own where no value is given."""
    try:
        parsed = PARSERS[field](value) if value else getattr(SamplingSettings(), field)
    except ValueError:
        raise UsageError("bad-option", f"/set {field}: {value!r} is not a number of that kind") from None
    changed = replace(sampling, **{field: parsed})
    check_options(changed)
    return changed


def _shown(value: object) -> str:
    return "the model's own" if value is None or value == () else str(value)


def _think(talk: Talk, think: bool) -> Outcome:
    talk.session.think = think
    return Outcome(say="the model thinks before it answers, if it can" if think else "the model answers at once")


def _verbose(talk: Talk, verbose: bool) -> Outcome:
    talk.show_stats = verbose
    return Outcome(say="figures after every answer" if verbose else "no figures after an answer")


def _show(talk: Talk, rest: str) -> Outcome:
    settings = [f"{field:<19} {_shown(getattr(talk.session.sampling, field))}" for field in PARSERS]
    system = next((message.content for message in talk.session.messages if message.role == "system"), "none")
    tokens = f"{'conversation':<19} {talk.session.token_count:,} tokens"
    return Outcome(say="\n".join([talk.about, tokens, f"{'system':<19} {system}", *settings]))


def _save(talk: Talk, rest: str) -> Outcome:
    talk.session.save(_path("save", rest))
    return Outcome(say=f"saved {len(talk.session.messages)} messages to {rest}")


def _load(talk: Talk, rest: str) -> Outcome:
    talk.session.restore(talk.session.load_messages(_path("load", rest)))
    return Outcome(say=f"went back to {len(talk.session.messages)} messages of {rest}")


def _read(talk: Talk, rest: str) -> Outcome:
    """``FILE`` or ``FILE QUESTION``, a name with spaces in quotes: the question comes first, then the file."""
    name, _, question = rest[1:].partition('"') if rest.startswith('"') else rest.partition(" ")
    text = read_text(_path("read", name))
    return Outcome(ask=f"{question.strip()}\n\n{text}" if question.strip() else text)


def _path(command: str, text: str) -> Path:
    if not text:
        raise UsageError("bad-option", f"/{command} needs the name of a file", hint=f"`/{command} FILE`")
    return Path(text.strip('"')).expanduser()


def _stats(talk: Talk, rest: str) -> Outcome:
    return Outcome(say=talk.stats(talk.last) if talk.last else "nothing has been answered yet")


COMMANDS = (
    Command("help", "", "list the commands", _help),
    Command("clear", "", "forget the conversation; the system prompt stays", _clear),
    Command("system", "TEXT", "set the system prompt; without TEXT, take it away", _system),
    Command("set", "NAME VALUE", "temperature, top_k, seed, ...; alone: the model's own", _set),
    Command("show", "", "the model, where it lives, what is set", _show),
    Command("save", "FILE", "write the conversation to a file", _save),
    Command("load", "FILE", "go on with a saved conversation", _load),
    Command("regen", "", "answer the last question again", lambda talk, rest: Outcome(regenerate=True)),
    Command("read", "FILE [TEXT]", "send a file, with TEXT before it", _read),
    Command("stats", "", "the figures of the last answer", _stats),
    Command("bye", "", "leave", lambda talk, rest: Outcome(leave=True)),
)
BY_NAME: Mapping[str, Command] = {command.name: command for command in COMMANDS} | {
    alias: next(command for command in COMMANDS if command.name == name)
    for alias, name in {"?": "help", "exit": "bye", "quit": "bye"}.items()
}
PARSERS: Mapping[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "seed": int,
    "max_tokens": int,
    "stop": lambda text: (text,),
}
ALIASES = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}  # ollama's names
SWITCHES: Mapping[str, Callable[[Talk], Outcome]] = {
    "think": lambda talk: _think(talk, True),
    "nothink": lambda talk: _think(talk, False),
    "verbose": lambda talk: _verbose(talk, True),
    "quiet": lambda talk: _verbose(talk, False),
}
