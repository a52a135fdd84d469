"""The commands of llmrun as the manual needs them, read from the Typer app: what `--help` says, in parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

PROGRAM = "llmrun"
_BETWEEN_FACTS = re.compile(r"; (?=env var: |default: |required$|x[<>]=|\S+<=x)")


@dataclass(frozen=True)
class Parameter:
    """An option or argument. The ``signature`` is as in ``--help``: ``-p, --prompt TEXT`` or ``MODEL``."""

    signature: str
    help: str
    is_option: bool
    environment: str = ""
    default: str = ""
    limits: str = ""

    @property
    def sentences(self) -> str:
        """The help, and what is known beside it."""
        parts = [
            _sentence(self.help),
            self.limits and f"{self.limits}.",
            self.default and f"Default: {self.default}.",
            self.environment and f"Environment: {self.environment}.",
        ]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Command:
    """A command by its whole name, such as ``llmrun chat``; the root has no parameters but options."""

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    epilog: str = ""

    @property
    def page(self) -> str:
        """The name of its manual page: ``llmrun-chat``."""
        return self.name.replace(" ", "-")

    @property
    def summary(self) -> str:
        """The first sentence, without its stop."""
        return re.split(r"\.(?:\s|$)", self.paragraphs[0], maxsplit=1)[0]

    @property
    def options(self) -> tuple[Parameter, ...]:
        """Those that begin with dashes."""
        return tuple(one for one in self.parameters if one.is_option)

    @property
    def arguments(self) -> tuple[Parameter, ...]:
        """Those that are known by their place."""
        return tuple(one for one in self.parameters if not one.is_option)


def read_commands(app: typer.Typer) -> tuple[Command, ...]:
    """The root and every command below it that is not hidden, in the order of ``--help``."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup), "llmrun has commands"
    return tuple(_commands(root, typer.Context(root, info_name=PROGRAM, **root.context_settings)))


def _commands(command: TyperCommand | TyperGroup, context: typer.Context) -> Iterator[Command]:
    yield _command(command, context)
    for name, below in command.commands.items() if isinstance(command, TyperGroup) else ():
        if isinstance(below, TyperCommand | TyperGroup) and not below.hidden:
            yield from _commands(below, typer.Context(below, info_name=name, parent=context, **below.context_settings))


def _command(command: TyperCommand | TyperGroup, context: typer.Context) -> Command:
    blocks = re.split(r"\n\s*\n", cleandoc(command.help or ""))
    return Command(
        name=context.command_path,
        usage=" ".join([context.command_path, *map(_plain_piece, command.collect_usage_pieces(context))]),
        paragraphs=tuple(" ".join(block.split()) for block in blocks),
        parameters=tuple(_parameters(command, context)),
        epilog=" ".join((command.epilog or "").split()),
    )


def _plain_piece(piece: str) -> str:
    """Typer writes ``{MODEL}`` for what has to be given; manuals leave it bare. ``TARGET......`` is Typer's too."""
    return re.sub(r"\.{4,}", "...", piece.replace("{", "").replace("}", ""))


def _parameters(command: TyperCommand | TyperGroup, context: typer.Context) -> Iterator[Parameter]:
    for one in command.get_params(context):
        assert isinstance(one, TyperArgument | TyperOption), "Typer makes no others"
        if record := one.get_help_record(context):
            yield _parameter(record[0], one.help or "", record[1], is_option=isinstance(one, TyperOption))


def _parameter(signature: str, help_text: str, told: str, *, is_option: bool) -> Parameter:
    """``told`` is the help with ``[env var: NAME; default: VALUE; x>=1]`` behind it."""
    facts = _BETWEEN_FACTS.split(told.removeprefix(help_text).strip()[1:-1])
    named = dict(fact.split(": ", 1) for fact in facts if ": " in fact)
    return Parameter(
        signature=re.sub(r"<([^>]*)>", r"\1", signature) if is_option else signature.split(" <")[0],
        help=" ".join(help_text.split()),
        is_option=is_option,
        environment=named.get("env var", ""),
        default=_plain_default(named.get("default", "")),
        limits=next((_limits(fact) for fact in facts if re.search(r"\bx[<>]=", fact)), ""),
    )


def _plain_default(text: str) -> str:
    """Typer puts words in parentheses, and has 1.0 where people write 1."""
    return re.sub(r"^\((.*)\)$", r"\1", re.sub(r"^(\d+)\.0$", r"\1", text))


def _limits(text: str) -> str:
    """``x>=1`` and ``0.1<=x<=3600`` in words."""
    if between := re.fullmatch(r"(\S+)<=x<=(\S+)", text):
        return f"{between[1]} to {between[2]}"
    return text.replace("x>=", "At least ").replace("x<=", "At most ")


def _sentence(text: str) -> str:
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
