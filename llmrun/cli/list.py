"""``llmrun list``: the models on this disk, and the short names of others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmrun.hub.inventory import Installed, Known


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with a schema version.")] = False,
) -> None:
    """List the models on this disk and the aliases."""
    from llmrun.hub.inventory import installed, known

    models, names = installed(), known()
    if as_json:
        typer.echo(json.dumps(_document(models, names), indent=2))
        return
    typer.echo("\n".join([*_models_table(models), "", *_aliases_table(names)]))


def _document(models: Iterable[Installed], names: Iterable[Known]) -> dict[str, Any]:
    from llmrun.hub.inventory import SCHEMA_VERSION

    return {
        "schema": SCHEMA_VERSION,
        "models": [
            {
                "name": model.name,
                "origin": model.origin.value,
                "source": model.source,
                "folder": str(model.folder),
                "size_bytes": model.size_bytes,
            }
            for model in models
        ],
        "aliases": [
            {
                "name": known.alias.name,
                "hub": known.alias.hub,
                "revision": known.alias.revision,
                "licence": known.alias.licence,
                "approximate_size_bytes": known.alias.size_bytes,
                "local": known.local,
            }
            for known in names
        ],
    }


def _models_table(models: Sequence[Installed]) -> list[str]:
    from llmrun.units import format_bytes

    if not models:
        return ["no model is on this disk yet; `llmrun pull` fetches the default one"]
    rows = [(model.name, format_bytes(model.size_bytes), model.origin.value, model.source[:40]) for model in models]
    return _columns([("MODEL", "SIZE", "ORIGIN", "SOURCE"), *rows])


def _aliases_table(names: Iterable[Known]) -> list[str]:
    from llmrun.units import format_bytes

    rows = [
        (
            known.alias.name,
            f"~{format_bytes(known.alias.size_bytes)}",
            "yes" if known.local else "no",
            known.alias.licence,
            known.alias.hub,
        )
        for known in names
    ]
    return _columns([("ALIAS", "SIZE", "LOCAL", "LICENCE", "HUB"), *rows])


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
