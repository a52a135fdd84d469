"""``llmrun pull``: fetch or import a model, so that the next run starts at once."""

from __future__ import annotations

import typer

from llmrun.cli.options import Model
from llmrun.cli.repack import runnable_folder


def pull(model: Model = None) -> None:
    """Fetch a model, import a .gguf file, or repack what others quantised to integers; print the folder it is in."""
    from llmrun.hub import resolve

    typer.echo(runnable_folder(resolve(model, notify=_tell), _tell))


def _tell(line: str) -> None:
    typer.echo(line, err=True)
