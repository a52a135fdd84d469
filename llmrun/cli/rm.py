"""``llmrun rm``: delete a model that was imported or downloaded; never a folder of the user's."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from llmrun.cli import complete


def rm(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=complete.removable,
            help="A name of `llmrun list`, an alias, or a Hugging Face id.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a model from the caches. Folders and files of yours are never touched."""
    from llmrun.errors import UsageError
    from llmrun.hub.inventory import removable, remove
    from llmrun.units import format_bytes

    places = removable(model)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("confirmation-needed", f"deleting {model} has to be confirmed", hint="add `--yes`")
        what = ", ".join(str(place) for place in places)
        if not typer.confirm(f"delete {what}?", err=True):
            return
    typer.echo(f"freed {format_bytes(remove(model))}", err=True)
