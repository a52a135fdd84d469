"""``docs/cli.md``: every command and option on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from command_tree import Command, Parameter
from notes import Notes

HEAD = """# Commands

<!-- Made by tools/manual.py from the commands themselves. -->

`llmrun COMMAND --help` and `man llmrun-COMMAND` say the same as this page.
[settings.md](settings.md) tells how to set options in a file or the environment.
"""
SHELL = """## Shell completion

Tab completes commands, options, and the names that they take: models and aliases, planners, typical machines. The
scripts are in `completions/`, and ask `llmrun` itself, which has to be on the `PATH`.

```sh
# bash: in a folder that bash-completion reads, or `source` the file in ~/.bashrc
install -D -m 644 completions/llmrun.bash ~/.local/share/bash-completion/completions/llmrun
# zsh: in a folder of its own, named in ~/.zshrc before compinit: fpath=(~/.zfunc $fpath)
install -D -m 644 completions/_llmrun ~/.zfunc/_llmrun
# fish
install -D -m 644 completions/llmrun.fish ~/.config/fish/completions/llmrun.fish
```

## Manual pages

```sh
install -D -m 644 -t ~/.local/share/man/man1 man/*.1
```

Then `man llmrun` and `man llmrun-chat` find them; `man -l man/llmrun.1` reads one where it is.
"""


def cli_page(commands: Sequence[Command], notes: Notes) -> str:
    """The page."""
    return "\n".join(_parts(commands, notes))


def _parts(commands: Sequence[Command], notes: Notes) -> Iterator[str]:
    others = commands[1:]
    yield HEAD
    yield from _table(("Command", "What it does"), {_link(one): f"{one.summary}." for one in others})
    for command in commands:
        yield from _section(command, notes)
    yield "## Exit codes\n\nSee also [errors.md](errors.md), which lists every error.\n"
    yield from _table(("Code", "Meaning"), notes.exit_status)
    yield "## Files\n"
    yield from _table(("Path", "What is there"), {f"`{path}`": text for path, text in notes.files.items()})
    yield SHELL.rstrip("\n") + "\n"


def _section(command: Command, notes: Notes) -> Iterator[str]:
    yield f"## {command.name}\n\n```\n{command.usage}\n```\n"
    for paragraph in (*command.paragraphs, command.epilog):
        if paragraph:
            yield f"{_text(paragraph)}\n"
    if command.arguments:
        yield from _table(("Argument", "Meaning"), _rows(command.arguments))
    yield from _table(("Option", "Meaning"), _rows(command.options))
    if examples := notes.examples_of(command.name):
        lines = [line for one in examples for line in (f"# {one.what}", f"$ {one.run}")]
        yield "\n".join(["```console", *lines, "```", ""])


def _rows(parameters: Sequence[Parameter]) -> Mapping[str, str]:
    return {f"`{one.signature}`": one.sentences for one in parameters}


def _table(head: tuple[str, str], rows: Mapping[str, str]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n| --- | --- |"
    yield "\n".join(f"| {_cell(first)} | {_cell(_text(second))} |" for first, second in rows.items()) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _text(text: str) -> str:
    """Help is plain text: ``<`` and ``*`` mean themselves, unless they stand in backticks."""
    pieces = text.split("`")
    return "`".join(
        piece if n % 2 else piece.replace("<", "&lt;").replace("*", "\\*") for n, piece in enumerate(pieces)
    )


def _link(command: Command) -> str:
    return f"[`{command.name}`](#{command.page})"
