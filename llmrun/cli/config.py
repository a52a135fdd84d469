"""``llmrun config``: each setting, its value and where that is from; the settings file's path, and an example."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

import typer

from llmrun.cli.config_file import FILE_VARIABLE, settings_path
from llmrun.errors import UsageError


def config(
    context: typer.Context,
    path: Annotated[bool, typer.Option("--path", help="Print where the settings file is looked for.")] = False,
    example: Annotated[bool, typer.Option("--example", help="Print a settings file to begin with.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON with a schema version.")] = False,
) -> None:
    """Show each setting, its value and where that is from.

    A flag wins over the environment, the environment over the file. What is wrong with them is told, and the exit code
    is 2.
    """
    if sum((path, example, json)) > 1:
        raise UsageError("bad-option", "--path, --example and --json do not go together", hint="leave all but one out")
    if path:
        _print_path()
    elif example:
        typer.echo(files("llmrun.cli").joinpath("config_example.toml").read_text(encoding="utf-8"), nl=False)
    else:
        _print_settings(context, as_json=json)


def _print_path() -> None:
    if file := settings_path():
        typer.echo(file)
    else:
        typer.echo(f"no settings file is read: {FILE_VARIABLE} is empty", err=True)


def _print_settings(context: typer.Context, *, as_json: bool) -> None:
    from llmrun.cli.config_report import report_json, report_text, resolve

    report = resolve(context, settings_path())
    typer.echo(report_json(report) if as_json else report_text(report))
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    if report.problems:
        *others, last = report.problems
        for problem in others:
            typer.echo(problem.render(), err=True)
        raise last
