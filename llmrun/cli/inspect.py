"""``llmrun inspect``: what was found of the host, and what llmrun would take of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from llmrun.cli import complete, speeds_text
from llmrun.errors import DeviceError, UsageError
from llmrun.settings import Budget
from llmrun.units import format_bytes

if TYPE_CHECKING:
    from llmrun.hardware import Cpu, Disk, Gpu, HardwareProfile

SCHEMA_VERSION = 1
WIDTH = 80

Table = list[tuple[str, ...]]


def inspect_host(
    path: Annotated[
        Path | None,
        typer.Option(
            "--path", metavar="FOLDER", help="Look at (and read) the disk under this folder, not the model cache's."
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Show how fast it all is; measured once, in at most 10 s, and kept.")
    ] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure again.")] = False,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write hardware and speeds, for --hardware elsewhere.")
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware",
            metavar="FILE|PRESET",
            autocompletion=complete.presets,
            help="Show a saved or a typical machine, not this one.",
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Show devices, memory limits, the disk, and how fast they are."""
    from llmrun.hardware import default_budget, probe

    caches = cache_folders()
    if hardware is not None:
        profile = _other_host(hardware, measures=measure or refresh, path=path)
    else:
        profile = probe(path or caches["hub"])
        if measure or refresh or save:
            profile = _measured(profile, path, caches, refresh=refresh)
    budget = default_budget(profile)
    if save:
        _save(profile, save)
    typer.echo(as_json(profile, budget, caches) if json_output else as_text(profile, budget, caches))


def _other_host(name_or_path: str, *, measures: bool, path: Path | None) -> HardwareProfile:
    from llmrun.hardware.hardware_file import load_hardware

    if measures or path:
        raise UsageError(
            "bad-option",
            "--hardware shows another machine: --measure, --refresh and --path are about this one",
            hint=f"`llmrun inspect --hardware {name_or_path}`",
        )
    return load_hardware(name_or_path)


def _measured(
    profile: HardwareProfile, path: Path | None, caches: Mapping[str, Path], *, refresh: bool
) -> HardwareProfile:
    """The profile with speeds: kept ones, or else measured now on the weights under the path or in the caches."""
    from llmrun.hardware.speeds_cache import cached_speeds, is_too_small, measure_once, with_disk

    folders = [path] if path else [caches["hub"], caches["imported"]]
    folder = next((folder for folder in folders if not is_too_small(folder)), folders[0])
    profile = with_disk(profile, folder)
    speeds = None if refresh else cached_speeds(profile, _tell)
    return replace(profile, speeds=speeds or measure_once(profile, folder, _tell))


def _tell(note: str) -> None:
    typer.echo(note, err=True)


def _save(profile: HardwareProfile, path: Path) -> None:
    from llmrun.hardware.hardware_file import save_hardware

    try:
        save_hardware(profile, path)
    except OSError as error:
        raise DeviceError("write-failed", f"{path} cannot be written: {error.strerror}") from None
    _tell(f"saved as {path}")


def cache_folders() -> dict[str, Path]:
    """Where downloaded (``hub``) and imported (``imported``) models lie."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from llmrun.hub.store import models_folder

    return {"hub": Path(HF_HUB_CACHE), "imported": models_folder()}


def as_json(profile: HardwareProfile, budget: Budget, caches: Mapping[str, Path]) -> str:
    """All of it for scripts; amounts are bytes."""
    value = {
        "schema": SCHEMA_VERSION,
        "hardware": asdict(profile),
        "binding_limit": profile.binding.name,
        "default_budget": {"ram_bytes": budget.ram_bytes, "vram_bytes": dict(budget.vram_bytes)},
        "caches": {name: str(folder) for name, folder in caches.items()},
    }
    return json.dumps(value, indent=2)


def as_text(profile: HardwareProfile, budget: Budget, caches: Mapping[str, Path]) -> str:
    """All of it for people, section by section."""
    cpu = profile.cpu
    sections: dict[str, Table] = {
        "processor": list(_processor(cpu)),
        "memory": _memory_rows(profile),
        "GPUs": [_gpu_row(gpu) for gpu in profile.gpus] or [("none found",)],
    }
    if profile.disk:
        sections[f"disk under {profile.disk.path}"] = _disk_rows(profile.disk)
    if profile.speeds:
        sections[speeds_text.title(profile.speeds)] = speeds_text.rows(profile.speeds)
    sections["budget, if you set none"] = _budget_rows(profile, budget)
    sections["caches"] = [
        ("downloaded models", str(caches["hub"]), "HF_HOME moves it"),
        ("imported models", str(caches["imported"]), "LLMRUN_CACHE moves it"),
    ]
    if notes := (*profile.notes, *(profile.speeds.notes if profile.speeds else ())):
        sections["notes"] = [(line,) for note in notes for line in wrap(note, WIDTH - 2, subsequent_indent="  ")]
    return "\n".join(f"{title}\n{_table(rows)}" for title, rows in sections.items())


def _memory_rows(profile: HardwareProfile) -> Table:
    binding = profile.binding
    return [
        (
            limit.name,
            format_bytes(limit.limit_bytes),
            f"{format_bytes(limit.available_bytes)} available",
            "<- the tightest" if limit is binding and len(profile.limits) > 1 else "",
        )
        for limit in profile.limits
    ]


def _gpu_row(gpu: Gpu) -> tuple[str, ...]:
    amounts = (format_bytes(gpu.total_bytes), f"{format_bytes(gpu.free_bytes)} available")
    return (gpu.device, gpu.name, *amounts, f"driver {gpu.driver}" if gpu.driver else "")


def _disk_rows(disk: Disk) -> Table:
    kind = {None: "kind unknown", True: "rotational, says the kernel", False: "solid state"}[disk.rotational]
    direct = {None: "could not be tried", True: "works", False: "refused (buffered reads are used)"}[disk.direct_io]
    return [
        ("mounted at", f"{disk.mount_point} ({disk.file_system}, {disk.device}; {kind})"),
        ("free", f"{format_bytes(disk.free_bytes)} of {format_bytes(disk.total_bytes)}"),
        ("direct I/O", direct),
    ]


def _budget_rows(profile: HardwareProfile, budget: Budget) -> Table:
    amounts = {"RAM": (profile.binding.available_bytes, budget.ram_bytes)}
    amounts |= {gpu.device: (gpu.free_bytes, budget.on(gpu.device)) for gpu in profile.gpus}
    return [
        (device, format_bytes(allowed), f"{format_bytes(free)} available less {format_bytes(free - allowed)} headroom")
        for device, (free, allowed) in amounts.items()
    ]


def _processor(cpu: Cpu) -> Iterator[tuple[str, ...]]:
    yield cpu.name, f"{_count(cpu.physical_cores, 'core')}, {_count(cpu.logical_cores, 'thread')}"
    if cpu.kernels == "torch":
        yield "kernels", "none built: torch computes, slower (a C compiler was missing)"
    elif cpu.kernels:
        yield "kernels", cpu.kernels


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _table(rows: Table) -> str:
    """Rows in columns as wide as they need, two blanks apart, indented."""
    n_columns = max(len(row) for row in rows)
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(n_columns)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)
