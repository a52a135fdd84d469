"""A manual page for each command."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from command_tree import PROGRAM, Command
from notes import Example, Notes
from roff import bold, escape, italic, prose, section, signature, tagged, verbatim

from llmrun import __version__

NOTE = '.\\" Made by tools/manual.py from the commands themselves.'


def man_pages(commands: Sequence[Command], notes: Notes) -> Mapping[str, str]:
    """File name -> page."""
    return {f"{command.page}.1": "\n".join(_page(command, commands, notes)) + "\n" for command in commands}


def _page(command: Command, commands: Sequence[Command], notes: Notes) -> Iterator[str]:
    is_root = command.name == PROGRAM
    yield NOTE
    yield f'.TH {escape(command.page.upper())} 1 "{notes.date}" "{PROGRAM} {__version__}" "User Commands"'
    yield ".nh\n.ad l"  # names are not to be broken, nor lines filled with blanks
    yield section("NAME", f"{escape(command.page)} \\-\n{prose(_lower(command.summary))}")
    yield section("SYNOPSIS", _usage(command))
    yield section("DESCRIPTION", "\n.PP\n".join(prose(text) for text in _description(command)))
    if is_root:
        below = [tagged(bold(one.name.removeprefix(f"{PROGRAM} ")), f"{one.summary}.") for one in commands[1:]]
        yield section("COMMANDS", *below)
    if command.arguments:
        yield section("ARGUMENTS", *(tagged(signature(one.signature), one.sentences) for one in command.arguments))
    yield section("OPTIONS", *(tagged(signature(one.signature), one.sentences) for one in command.options))
    yield section("EXIT STATUS", *(tagged(bold(code), text) for code, text in notes.codes_of(command.name).items()))
    if variables := notes.environment if is_root else _variables(command, notes):
        yield section("ENVIRONMENT", *(tagged(prose(name), text) for name, text in variables.items()))
    if is_root:
        yield section("FILES", *(tagged(italic(path), text) for path, text in notes.files.items()))
    if examples := notes.examples_of(command.name):
        yield section("EXAMPLES", "\n.PP\n".join(_example(one) for one in examples))
    yield section("SEE ALSO", ",\n".join(f"{bold(one.page)}(1)" for one in commands if one is not command))


def _variables(command: Command, notes: Notes) -> Mapping[str, str]:
    """Those that stand for options of a command."""
    own = {f"`{one.environment}`" for one in command.parameters}
    return {name: text for name, text in notes.environment.items() if name in own}


def _description(command: Command) -> Sequence[str]:
    return [*command.paragraphs, *([command.epilog] if command.epilog else [])]


def _usage(command: Command) -> str:
    values = command.usage.removeprefix(command.name)
    return bold(command.name) + re.sub(r"[A-Z]+", lambda word: italic(word[0]), values)


def _example(example: Example) -> str:
    return f"{prose(example.what)}\n.PP\n.RS 4\n{verbatim([example.run])}\n.RE"


def _lower(sentence: str) -> str:
    """As it stands behind a name; words like GPU and OpenAI stay."""
    return sentence[0].lower() + sentence[1:] if sentence[1:2].islower() or sentence[1:2] == " " else sentence
