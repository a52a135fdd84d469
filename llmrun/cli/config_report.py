"""Each setting of each command as Typer resolves it, for ``llmrun config``."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llmrun.cli.config_file import FILE_VARIABLE, read_entries
from llmrun.cli.config_match import (
    Settings,
    commands_below,
    entry_of,
    is_shared,
    match,
    options_of,
    origin,
    origin_rows,
)
from llmrun.errors import UsageError

if TYPE_CHECKING:
    from typer.core import TyperCommand

    from llmrun.cli.config_match import Commands, Parameter

SCHEMA_VERSION = 1

ONLY_VARIABLES = {
    "LLMRUN_API_KEY": "OPENAI_API_KEY, or none",
    "LLMRUN_CACHE": "llmrun in the user's cache folder",
    "LLMRUN_KERNELS": "the best that this processor has",
    "LLMRUN_MEASURE_S": "10",
    "LLMRUN_TRACEBACK": "no traceback",
}
"""Variables of the environment that are no option and not in the file, and what is without them."""

SECRETS = {"LLMRUN_API_KEY"}
"""Told to be set, and no more."""


@dataclass(frozen=True)
class Setting:
    """One setting of a command, or of the environment where ``command`` is empty.

    ``value`` is as it was written, and ``None`` where nothing was; then ``meaning`` says what that comes to.
    ``source`` is default, file or environment, and ``place`` the variable, or file and line. ``shared``: other commands
    have it too; ``own``: it is from the command's own table.
    """

    command: str
    name: str
    value: object
    meaning: str
    source: str
    place: str | None
    shared: bool = False
    own: bool = False


@dataclass(frozen=True)
class Report:
    """What ``llmrun config`` tells."""

    path: Path | None
    settings: tuple[Setting, ...]
    problems: tuple[UsageError, ...]
    notes: tuple[str, ...]


def resolve(context: typer.Context, path: Path | None, env: Mapping[str, str] = os.environ) -> Report:
    """Every setting as a command without flags would take it; what is wrong is left out and told as a problem."""
    commands = commands_below(context)
    settings = _read(path, commands)
    problems = list(settings.problems)
    root = typer.Context(context.find_root().command, info_name="llmrun")
    settings.install(root)
    found = [one for name, command in commands.items() for one in _resolved(name, command, root)]
    problems += [problem for _, problem in found if problem]
    once = {problem.render(): problem for problem in problems}  # a shared setting is wrong for each command
    rows = (*(setting for setting, _ in found), *_only_variables(env))
    return Report(path, rows, tuple(once.values()), tuple(_unknown_variables(commands, env)))


def _read(path: Path | None, commands: Commands) -> Settings:
    try:
        return match(read_entries(path), commands)
    except UsageError as problem:
        return Settings({}, {}, (problem,))


def _resolved(name: str, command: TyperCommand, root: typer.Context) -> Iterator[tuple[Setting, UsageError | None]]:
    context = typer.Context(command, parent=root, info_name=name)
    for key, parameter in options_of(command).items():
        problem = _problem(context, parameter)
        yield _setting(key, parameter, context), problem


def _problem(context: typer.Context, parameter: Parameter) -> UsageError | None:
    """Let Typer read, convert and check the value, as it does for a command."""
    try:
        parameter.handle_parse_result(context, {}, [])
    except UsageError as error:
        return error
    except typer.TyperException as error:
        return UsageError("bad-option", error.format_message(), rows=origin_rows(context, parameter))
    return None


def _setting(key: str, parameter: Parameter, context: typer.Context) -> Setting:
    value, source = parameter.consume_value(context, {})
    shown = parameter.show_default
    entry = entry_of(context, parameter)
    return Setting(
        command=context.info_name or "",
        name=key,
        value=value,
        meaning=shown if isinstance(shown, str) else "none" if value is None else _text(value),
        source={"ENVIRONMENT": "environment", "DEFAULT_MAP": "file"}.get(source.name, "default"),
        place=origin(context, parameter),
        shared=is_shared(parameter),
        own=bool(entry and entry.table),
    )


def _only_variables(env: Mapping[str, str]) -> Iterator[Setting]:
    for name, meaning in ONLY_VARIABLES.items():
        value = "set" if env.get(name) and name in SECRETS else env.get(name) or None
        yield Setting("", name, value, meaning, "environment" if value else "default", name if value else None)


def _unknown_variables(commands: Commands, env: Mapping[str, str]) -> Iterator[str]:
    options = (option for command in commands.values() for option in options_of(command).values())
    known = {FILE_VARIABLE, *ONLY_VARIABLES, *(str(option.envvar) for option in options if option.envvar)}
    for name in sorted(env):
        if name.startswith("LLMRUN_") and name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)[0]
            yield f"{name} is not a variable that llmrun reads; the nearest is {near}"


def report_json(report: Report) -> str:
    """All of it for scripts: every setting of every command."""
    value = {
        "schema": SCHEMA_VERSION,
        "file": {"path": str(report.path) if report.path else None, "exists": _exists(report.path)},
        "settings": [asdict(setting) for setting in report.settings],
        "problems": [{"reference": problem.reference, "message": problem.message} for problem in report.problems],
        "notes": list(report.notes),
    }
    return json.dumps(value, indent=2)


def report_text(report: Report) -> str:
    """All of it for people: what the commands share once, then what is particular to each."""
    shared = _shared(report.settings)
    sections: dict[str, list[Setting]] = {"every command that has it": list(shared.values())}
    for setting in report.settings:
        title = f"[{setting.command}]" if setting.command else "the environment only"
        if _as_shared(setting) != shared.get(setting.name):
            sections.setdefault(title, []).append(setting)
    rows = {title: [_cells(setting, report.path) for setting in found] for title, found in sections.items()}
    widths = [max(len(row[column]) for found in rows.values() for row in found) for column in range(2)]
    lines = [_file_line(report.path)]
    for title, found in rows.items():
        lines += ["", title, *(f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in found)]
    return "\n".join(lines)


def _shared(settings: Sequence[Setting]) -> dict[str, Setting]:
    """Name -> what the commands that have no value of their own take of each setting that they share."""
    found: dict[str, list[Setting]] = {}
    for setting in settings:
        if setting.shared and not setting.own:
            found.setdefault(setting.name, []).append(_as_shared(setting))
    return {name: max(same, key=same.count) for name, same in found.items()}


def _as_shared(setting: Setting) -> Setting:
    """What commands have in common; what a default would be says nothing where there is a value."""
    return replace(setting, command="", meaning=setting.meaning if setting.source == "default" else "")


def _cells(setting: Setting, path: Path | None) -> tuple[str, str, str]:
    value = setting.meaning if setting.source == "default" else _text(setting.value)
    place = (setting.place or "").removeprefix(f"{path}, ") if setting.source != "default" else ""
    return setting.name, value, {"default": "default", "file": f"file, {place}"}.get(setting.source, place)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _file_line(path: Path | None) -> str:
    if path is None:
        return f"settings file: none, {FILE_VARIABLE} is empty"
    return f"settings file: {path}{'' if _exists(path) else ' (not there)'}"


def _exists(path: Path | None) -> bool:
    return bool(path and path.is_file())
