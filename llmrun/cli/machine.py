"""The machine that is planned for: this host as it was measured, or one from a file or preset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmrun.cli.options import budget_within
from llmrun.errors import UsageError
from llmrun.settings import AUTO, LOSSLESS, SELF, SPECULATE_OFF, Budget, Precision, Speculating
from llmrun.units import format_bytes, format_rate

if TYPE_CHECKING:
    from llmrun.checkpoint.spec import ModelSpec, UnitSpec
    from llmrun.hardware import HardwareProfile
    from llmrun.hardware.speeds import OwnLayers, Speeds

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Machine:
    """What to plan for. ``name`` is that of the file or preset, empty for this host."""

    profile: HardwareProfile
    speeds: Speeds
    name: str = ""

    @property
    def is_this_host(self) -> bool:
        """Whether a plan for it can be run here."""
        return not self.name

    @property
    def words(self) -> str:
        """Processor, RAM, GPUs and disk in a line."""
        ram = format_bytes(self.profile.limits[0].limit_bytes)
        parts = [self.name] if self.name else []
        parts += [self.profile.cpu.name, f"{ram} RAM"]
        parts += [f"{gpu.name} {format_bytes(gpu.total_bytes)}" for gpu in self.profile.gpus]
        return ", ".join([*parts, f"disk {format_rate(self.speeds.disk.bytes_per_s.p50)}"])


def given_machine(name_or_path: str, notify: Notify) -> Machine:
    """The machine of ``--hardware``.

    Raises:
        UsageError: ``bad-hardware-file``; ``no-speeds``, it was saved without measuring.
    """
    from llmrun.hardware.hardware_file import load_hardware

    profile = load_hardware(name_or_path)
    if profile.speeds is None:
        raise UsageError(
            "no-speeds",
            f"{name_or_path} says what that machine has, but not how fast it is",
            hint="on that machine: `llmrun inspect --measure --save FILE`",
        )
    for note in profile.speeds.notes:
        notify(f"{name_or_path}: {note}")
    return Machine(profile, profile.speeds, name_or_path)


def this_machine(
    spec: ModelSpec,
    notify: Notify,
    *,
    may_measure: bool,
    precision: Precision = LOSSLESS,
    speculating: Speculating = SPECULATE_OFF,
    ram_bytes: int | None = None,
) -> Machine:
    """This host, measured now if it was not and ``may_measure``; where it may not, nothing is written either.

    Measured are the model's layers as they are, and in the formats that they may be kept in; where some may stream
    within ``ram_bytes``, by default of what is free, in the format of substitutes too.

    Raises:
        UsageError: ``no-speeds``, it was not measured yet.
    """
    from llmrun.cli.inspect import cache_folders
    from llmrun.hardware import probe
    from llmrun.hardware.speeds_cache import (
        cached_speeds,
        is_too_small,
        measure_once,
        speeds_for,
        with_disk,
    )
    from llmrun.planner.drafting import SUBSTITUTE

    folder = Path(spec.folder) if spec.is_local else cache_folders()["hub"]
    profile = with_disk(probe(), folder, try_direct=may_measure)
    if spec.is_local and (may_measure or is_too_small(folder)):  # nothing is measured for a model that small
        own = [*_own_layers(spec, precision)]
        if may_measure and _may_substitute(spec, profile, precision, speculating, ram_bytes):
            own.append(own_layer(spec, SUBSTITUTE, fine=False))
        return Machine(profile, speeds_for(profile, folder, notify, *own))
    speeds = cached_speeds(profile, notify)
    if speeds is None and may_measure:
        speeds = measure_once(profile, folder, notify)
    if speeds is None:
        raise _not_measured(folder if spec.is_local else None)
    return Machine(profile, speeds)


def _may_substitute(
    spec: ModelSpec, profile: HardwareProfile, precision: Precision, speculating: Speculating, ram_bytes: int | None
) -> bool:
    """Whether a plan of it may have substitutes."""
    from llmrun.hardware import default_budget
    from llmrun.planner.drafting import can_substitute

    budget_bytes = budget_within(default_budget(profile), ram_bytes, None).ram_bytes
    wanted = speculating.method in (AUTO, SELF) and spec.nbytes >= budget_bytes
    return wanted and can_substitute(spec, precision)


def tell_of_format(spec: ModelSpec, precision: Precision, notify: Notify) -> None:
    """Say so where ``--format`` changes nothing.

    Raises:
        UsageError: ``bad-option``, no format has that name.
    """
    from llmrun.checkpoint.kept import can_keep

    if precision.format and not can_keep(spec, precision.format):
        notify(f"--format {precision.format} has no effect: {spec.name} stays {spec.format_words}, as it is")


def _own_layers(spec: ModelSpec, precision: Precision) -> Iterator[OwnLayers]:
    """Its layers, as the first of them is: as they are, then in the formats that they may be kept in."""
    from llmrun.checkpoint.kept import is_kept

    first = _first_layer(spec)
    for name in (None, *precision.kept_formats):
        if name is None or is_kept(spec, first, name):
            yield own_layer(spec, name, fine=precision.quality.fine)


def own_layer(spec: ModelSpec, name: str | None, *, fine: bool) -> OwnLayers:
    """The layers of a model in that format, computed so, as they are measured: as the first of them is."""
    from llmrun.checkpoint.kept import kept_unit, layer_shape
    from llmrun.hardware.speeds import OwnLayers

    first = _first_layer(spec)
    unit, within = kept_unit(first, name), f".{first.layer}."
    formats = tuple((tensor.name.partition(within)[2], tensor.dtype) for tensor in unit.tensors)
    return OwnLayers(layer_shape(spec, name, fine=fine), formats, name is not None, fine)


def _first_layer(spec: ModelSpec) -> UnitSpec:
    from llmrun.checkpoint.spec import UnitKind

    return next(unit for unit in spec.units if unit.kind is UnitKind.LAYER)


def budget_on(machine: Machine, ram_bytes: int | None, vram_bytes: int | None, notify: Notify) -> Budget:
    """What the user allows there, else what is free less some headroom; on GPUs whose speed is known."""
    from llmrun.hardware import default_budget

    budget = budget_within(default_budget(machine.profile), ram_bytes, vram_bytes)
    if vram_bytes and not budget.vram_bytes:
        notify("--vram has no effect: there is no GPU")
    measured = {device.device for device in machine.speeds.devices}
    for gpu in sorted(budget.vram_bytes.keys() - measured):
        notify(f"{gpu} is left alone: it was not measured")
    return Budget(budget.ram_bytes, {gpu: n for gpu, n in budget.vram_bytes.items() if gpu in measured})


def _not_measured(folder: Path | None) -> UsageError:
    path = f" --path {folder}" if folder else ""
    return UsageError(
        "no-speeds",
        "this host has not been measured yet, so nothing can be said about time",
        hint=f"`llmrun inspect --measure{path}` measures it; `--hardware laptop-16gib` plans for a typical machine",
    )
