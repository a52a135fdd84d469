"""From the keys of the settings file to defaults of Typer's options, and from an option to where its value is from.

Typer itself asks the command line, the environment, the context's ``default_map`` and the default, in that order. The
file only fills the map, so a value from it is checked like one that was typed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from llmrun.cli.config_file import Entry, read_entries, settings_path
from llmrun.errors import Row, UsageError

if TYPE_CHECKING:
    from typer.core import TyperArgument, TyperCommand, TyperOption

    Parameter = TyperArgument | TyperOption
    AnyParameter = Parameter | typer.CallbackParam
    Commands = Mapping[str, TyperCommand]

WITHOUT_SETTINGS = {"config"}
"""Commands that take nothing from the file: with ``llmrun config`` a broken one is looked at."""

_META = "llmrun.settings"


@dataclass(frozen=True)
class Settings:
    """What the file says, as command -> parameter -> value and its entry, and what is wrong with the file."""

    values: Mapping[str, dict[str, object]]
    entries: Mapping[str, Mapping[str, Entry]]
    problems: tuple[UsageError, ...] = ()

    def install(self, context: typer.Context) -> None:
        """Make the values the defaults of the commands below the context."""
        context.default_map = dict(self.values)
        context.meta[_META] = self.entries


def use_settings_file(context: typer.Context) -> None:
    """Make what the settings file says the defaults of the commands below this context.

    Raises:
        UsageError: ``bad-settings-file``, ``unknown-setting``, ``bad-setting``.
    """
    if entries := read_entries(settings_path()):
        settings = match(entries, commands_below(context))
        for problem in settings.problems:
            raise problem
        settings.install(context)


def entry_of(context: typer.Context, parameter: AnyParameter) -> Entry | None:
    """The entry of the file that decided a value, or ``None`` where something else did."""
    name = parameter.name or ""
    source = context.get_parameter_source(name)
    if not source or source.name != "DEFAULT_MAP":
        return None
    entry: Entry = context.meta[_META][context.info_name][name]
    return entry


def origin(context: typer.Context, parameter: AnyParameter) -> str | None:
    """Where a value is from that was not typed: ``LLMRUN_RAM``, or file and line; ``None`` for a default."""
    source = context.get_parameter_source(parameter.name or "")
    if source and source.name == "ENVIRONMENT":
        return str(parameter.envvar)
    entry = entry_of(context, parameter)
    return entry.place if entry else None


def origin_rows(context: typer.Context | None, parameter: AnyParameter | None) -> tuple[Row, ...]:
    """The line under an error that says where a value is from, if it was not typed."""
    place = origin(context, parameter) if context and parameter else None
    return (Row("it is from", place),) if place else ()


def commands_below(context: typer.Context) -> Commands:
    """The commands that take settings."""
    from typer.core import TyperCommand, TyperGroup

    root = context.find_root().command
    commands = root.commands if isinstance(root, TyperGroup) else {}
    return {
        name: command
        for name, command in commands.items()
        if isinstance(command, TyperCommand) and name not in WITHOUT_SETTINGS
    }


def options_of(command: TyperCommand) -> dict[str, Parameter]:
    """Key in the file -> parameter: all but --help and what has to be given each time, as the model that rm deletes."""
    from typer.core import TyperArgument, TyperOption

    return {
        _key_of(one): one
        for one in command.params
        if isinstance(one, TyperArgument | TyperOption) and not (one.required or one.is_eager or one.hidden)
    }


def is_shared(parameter: Parameter) -> bool:
    """Whether it may stand at the top of the file: what the commands share has a variable LLMRUN_... as well."""
    return str(parameter.envvar).startswith("LLMRUN_")


def match(entries: Iterable[Entry], commands: Commands) -> Settings:
    """Find the options that the entries are for; those of a command's table win over those at the top."""
    values: dict[str, dict[str, object]] = {name: {} for name in commands}
    decisive: dict[str, dict[str, Entry]] = {name: {} for name in commands}
    problems = []
    for entry in sorted(entries, key=lambda entry: entry.table != ""):
        try:
            for command, parameter in _targets(entry, commands):
                name = parameter.name or ""
                _check_once(entry, decisive[command].get(name))
                values[command][name] = _as_typed(entry, parameter)
                decisive[command][name] = entry
        except UsageError as problem:
            problems.append(problem)
    return Settings(values, decisive, tuple(problems))


def _targets(entry: Entry, commands: Commands) -> Iterator[tuple[str, Parameter]]:
    """Command and parameter of each that an entry is for; none for a table, whose entries speak for themselves.

    Raises:
        UsageError: ``unknown-setting``.
    """
    if isinstance(entry.value, dict) and not entry.table:
        if entry.key not in commands:
            raise _unknown_table(entry, commands)
        return
    if entry.table and entry.table not in commands:
        return  # told of the table already
    found = False
    for name in [entry.table] if entry.table else commands:
        option = options_of(commands[name]).get(entry.key.replace("-", "_"))
        if option and (entry.table or is_shared(option)):
            found = True
            yield name, option
    if not found:
        raise _unknown_key(entry, commands)


def _check_once(entry: Entry, other: Entry | None) -> None:
    """TOML allows ``max-tokens`` beside ``max_tokens``.

    Raises:
        UsageError: ``bad-setting``.
    """
    if other and other.table == entry.table:
        raise UsageError("bad-setting", f"{entry.place}: {entry.key} is there already, as {other.key}")


def _as_typed(entry: Entry, parameter: Parameter) -> object:
    """The value as the command line would give it: text, ``True`` and ``False`` for a flag, or a list of texts.

    Raises:
        UsageError: ``bad-setting``, it is of a kind that cannot be typed.
    """
    value = entry.value
    if getattr(parameter, "is_flag", False):
        wanted = "true or false"
        if isinstance(value, bool):
            return value
    elif getattr(parameter, "multiple", False):
        wanted = "a list of texts"
        texts = value if isinstance(value, list) else [value]
        if all(_is_scalar(text) for text in texts):
            return [str(text) for text in texts]
    else:
        wanted = "text or a number"
        if _is_scalar(value):
            return str(value)
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    raise UsageError("bad-setting", f"{entry.place}: {entry.key} has to be {wanted}, and is {shown}")


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _unknown_table(entry: Entry, commands: Commands) -> UsageError:
    if any(entry.key in options_of(command) for command in commands.values()):
        hint = f"`{entry.key} = ...`, without a table"
    else:
        hint = f"did you mean [{_nearest(entry.key, commands)}]? A table has the name of a command"
    return UsageError("unknown-setting", f"{entry.place}: there is no command for the table [{entry.key}]", hint=hint)


def _unknown_key(entry: Entry, commands: Commands) -> UsageError:
    key = entry.key.replace("-", "_")
    near = _nearest(key, {key for command in commands.values() for key in options_of(command)})
    question = "" if near == key else f"did you mean `{near}`? "
    where = f"under [{entry.table}]" if entry.table else "at the top"
    message = f"{entry.place}: there is no setting {entry.key!r} {where}"
    return UsageError("unknown-setting", message, hint=f"{question}`{near}` stands {_where(near, commands)}")


def _where(key: str, commands: Commands) -> str:
    """All the places of a key: ``at the top, or under [chat] or [plan]``."""
    having = {name: options[key] for name, command in commands.items() if key in (options := options_of(command))}
    at_top = "at the top, or " if any(is_shared(option) for option in having.values()) else ""
    return f"{at_top}under {' or '.join(f'[{name}]' for name in having)}"


def _nearest(word: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(word, list(known), n=1, cutoff=0)[0]


def _key_of(parameter: Parameter) -> str:
    """The long name of an option, as the file has it; the name of an argument."""
    long = next((name[2:] for name in parameter.opts if name.startswith("--")), parameter.name or "")
    return long.replace("-", "_")
