"""``llmrun pull``: fetch or import a model, so that the next run starts at once."""

from __future__ import annotations

import typer

from llmrun.cli.options import Model


def pull(model: Model = None) -> None:
    """Fetch a model, or import a .gguf file; print the folder it is in."""
    from llmrun.hub import resolve

    local = resolve(model, notify=lambda line: typer.echo(line, err=True))
    typer.echo(local.folder)
