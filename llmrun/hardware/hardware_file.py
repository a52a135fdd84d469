"""Hardware to plan for that one does not own: from a file that ``llmrun inspect --save`` wrote, or a preset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from llmrun.errors import UsageError
from llmrun.hardware.checks import faults
from llmrun.hardware.presets import preset, preset_names
from llmrun.hardware.profile import SCHEMA_VERSION, HardwareProfile, to_json

MOST_BYTES = 16 << 20
MOST_FAULTS = 5


def load_hardware(name_or_path: str) -> HardwareProfile:
    """The preset of that name, else the profile in that file.

    Raises:
        UsageError: ``bad-hardware-file``, there is none, or something in it is wrong; it names the field.
    """
    if name_or_path in preset_names():
        return preset(name_or_path)
    return parse_hardware(_read(Path(name_or_path).expanduser()), name_or_path)


def save_hardware(profile: HardwareProfile, path: Path) -> None:
    """Write the profile as JSON, in one step: the file is there whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        partial.write_text(to_json(profile) + "\n", encoding="utf-8")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def parse_hardware(text: str, source: str) -> HardwareProfile:
    """The profile that JSON text stands for; ``source`` is its name in errors.

    Raises:
        UsageError: ``bad-hardware-file``.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(source, [f"it is no JSON: {error}"]) from None
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema != SCHEMA_VERSION:
        raise _bad(source, [f"schema is {json.dumps(schema)[:40]}, this llmrun reads {SCHEMA_VERSION}"])
    try:
        profile = _adapter().validate_json(text, strict=True)
    except ValidationError as error:
        raise _bad(source, [_sentence(dict(detail)) for detail in error.errors()]) from None
    found = [*_unknown(raw, json.loads(to_json(profile))), *faults(profile)]
    if found:
        raise _bad(source, found)
    return profile


@cache
def _adapter() -> TypeAdapter[HardwareProfile]:
    return TypeAdapter(HardwareProfile)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _bad(str(path), [f"it has {path.stat().st_size:,} bytes, a saved profile has some thousand"])
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise _bad(str(path), [f"it cannot be read: {error.strerror or error}"]) from None
    except UnicodeDecodeError:
        raise _bad(str(path), ["it is no text"]) from None


def _sentence(detail: dict[str, Any]) -> str:
    """pydantic's finding with the field's path first: ``limits[0].limit_bytes: Field required``."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    if detail["type"] == "missing":
        return f"{path} is missing"
    value = repr(detail["input"])
    shown = value if len(value) <= 40 else f"{value[:40]}..."
    return f"{path or 'the whole'} is {shown}: {detail['msg']}"


def _unknown(raw: Any, known: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401
    """Fields that nobody reads: most likely a name that was misspelt."""
    if isinstance(raw, dict) and isinstance(known, dict):
        for name, value in raw.items():
            own = f"{path}.{name}".lstrip(".")
            if name not in known:
                yield f"{own} is no field of it"
            else:
                yield from _unknown(value, known[name], own)
    elif isinstance(raw, list) and isinstance(known, list):
        for index, (value, other) in enumerate(zip(raw, known, strict=False)):
            yield from _unknown(value, other, f"{path}[{index}]")


def _bad(source: str, found: list[str]) -> UsageError:
    more = f"; and {len(found) - MOST_FAULTS} more" if len(found) > MOST_FAULTS else ""
    return UsageError(
        "bad-hardware-file",
        f"{source}: {'; '.join(found[:MOST_FAULTS])}{more}",
        hint=f"`llmrun inspect --save FILE` writes such a file; the presets are {', '.join(preset_names())}",
    )
