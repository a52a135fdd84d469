"""What may be decided for a unit, and a placement as a row of numbers.

A candidate is a row of codes, one for each *stage*: the decoder layers in execution order, then the head. The other
units follow from these: ``rest`` lives where the last layer computes a token, a tied embedding where the head lives; an
untied one, of which only rows are read, stays on disk while others are weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmrun.checkpoint.kept import kept_unit
from llmrun.checkpoint.spec import ModelSpec, UnitKind, UnitSpec
from llmrun.planner.plan import CPU, DISK, Placement, Slots, is_gpu
from llmrun.settings import LOSSLESS, Precision


@dataclass(frozen=True)
class Choice:
    """Where a unit lives, which device computes it, for a token and in a prefill, and its formats in RAM."""

    home: str
    device: str
    prefill_device: str
    kept: str | None = None
    substitute: str | None = None

    def place(self, unit: str) -> Placement:
        """The placement of a unit that chooses so."""
        prompt_device = self.prefill_device if self.splits else None
        return Placement(unit, self.home, self.device, prompt_device, self.kept, self.substitute)

    @property
    def splits(self) -> bool:
        """Whether a prefill is computed elsewhere than a token."""
        return self.prefill_device != self.device

    @property
    def passes_host_ring(self) -> bool:
        """Whether weights go through the ring in RAM: streamed from disk, or once, on to a GPU or to be rounded."""
        return self.home == DISK or is_gpu(self.home) or self.kept is not None


@dataclass(frozen=True)
class Candidates:
    """Placements to weigh: codes ``(A, n)`` into the choices, slots ``(A,)`` of the ring in RAM and on each GPU."""

    codes: NDArray[np.int64]
    host_slots: NDArray[np.int64]
    gpu_slots: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: NDArray[np.int64]) -> Candidates:
        """Some of them, in that order."""
        return Candidates(self.codes[rows], self.host_slots[rows], self.gpu_slots[rows])

    def replaced(self, rows: NDArray[np.int64], others: Candidates) -> Candidates:
        """With others in the place of some."""
        codes, host, gpu = self.codes.copy(), self.host_slots.copy(), self.gpu_slots.copy()
        codes[rows], host[rows], gpu[rows] = others.codes, others.host_slots, others.gpu_slots
        return Candidates(codes, host, gpu)

    def slots(self, row: int) -> Slots:
        """The rings of one candidate."""
        return Slots(int(self.host_slots[row]), int(self.gpu_slots[row]))


def join(parts: Sequence[Candidates]) -> Candidates:
    """Several sets as one, in order."""
    return Candidates(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.host_slots for part in parts]),
        np.concatenate([part.gpu_slots for part in parts]),
    )


def choice_of(placement: Placement) -> Choice:
    """What a placement chooses."""
    return Choice(placement.home, placement.device, placement.prefill_device, placement.kept, placement.substitute)


def candidate_of(
    spec: ModelSpec, placements: Sequence[Placement], slots: Slots
) -> tuple[tuple[Choice, ...], Candidates]:
    """Placements as a candidate among only those choices that they make, in a steady order."""
    staged = {unit.name for unit in stages(spec)}
    choices = tuple({choice_of(placement): None for placement in placements if placement.unit in staged})
    codes = np.array([to_codes(spec, choices, placements)])
    return choices, Candidates(codes, np.array([slots.host]), np.array([slots.gpu]))


def all_choices(
    gpus: Sequence[str], kept_formats: Sequence[str] = (), substitute: str | None = None
) -> tuple[Choice, ...]:
    """Every sensible choice: weights stay, or are streamed from RAM or disk; a GPU may help with the prefill alone.

    What stays in RAM and is computed on the CPU may be kept in one of the formats.
    With ``substitute`` all that is streamed has a copy in that format, to draft with on the CPU; there is no GPU then.
    """
    assert not (substitute and gpus), "drafts are computed on the CPU"
    found = [Choice(CPU, CPU, CPU), Choice(DISK, CPU, CPU, substitute=substitute)]
    for gpu in gpus:
        found += [
            Choice(gpu, gpu, gpu),
            Choice(CPU, gpu, gpu),
            Choice(DISK, gpu, gpu),
            Choice(CPU, CPU, gpu),
            Choice(DISK, CPU, gpu),
        ]
    return (*found, *(Choice(CPU, CPU, CPU, name) for name in kept_formats))


def stages(spec: ModelSpec) -> tuple[UnitSpec, ...]:
    """The units that are decided on: layers, then the head."""
    return tuple(unit for unit in spec.units if unit.kind in (UnitKind.LAYER, UnitKind.HEAD))


def allowed(spec: ModelSpec, choices: Sequence[Choice], precision: Precision = LOSSLESS) -> NDArray[np.bool_]:
    """``(n, C)``: the head, which sees one token of a prompt, gains nothing from another device there.

    Kept in a format is what changes in it; and where one was asked for, all of that which stays in RAM for the CPU.
    """
    return np.array([[_is_allowed(unit, choice, precision) for choice in choices] for unit in stages(spec)])


def _is_allowed(unit: UnitSpec, choice: Choice, precision: Precision) -> bool:
    if choice.splits and unit.kind is not UnitKind.LAYER:
        return False
    if choice.kept:
        return kept_unit(unit, choice.kept) != unit
    is_asked = precision.format is not None and kept_unit(unit, precision.format) != unit
    return not (is_asked and choice.home == choice.device == CPU)


def to_placements(spec: ModelSpec, choices: Sequence[Choice], codes: Sequence[int]) -> tuple[Placement, ...]:
    """A row of codes as placements of all units, in execution order."""
    chosen = {unit.name: choices[code] for unit, code in zip(stages(spec), codes, strict=True)}
    head = chosen[spec.units[-1].name]
    layers = [choice for unit, choice in chosen.items() if spec.unit(unit).kind is UnitKind.LAYER]
    tail = layers[-1].device if layers else head.device
    placements = []
    for unit in spec.units:
        if unit.kind is UnitKind.EMBEDDING:
            placements.append(_embedding(spec, unit, head))
        elif unit.name in chosen:
            placements.append(chosen[unit.name].place(unit.name))
        else:
            placements.append(Placement(unit.name, tail, tail))
    return tuple(placements)


def to_codes(spec: ModelSpec, choices: Sequence[Choice], placements: Sequence[Placement]) -> list[int]:
    """The row of codes of placements.

    Raises:
        ValueError: a placement is none of the choices.
    """
    by_unit = {placement.unit: placement for placement in placements}
    chosen = (by_unit[unit.name] for unit in stages(spec))
    return [choices.index(choice_of(placement)) for placement in chosen]


def _embedding(spec: ModelSpec, unit: UnitSpec, head: Choice) -> Placement:
    if not spec.tied_embeddings:
        return Placement(unit.name, DISK, CPU)
    return Placement(unit.name, head.home, head.device if head.home == head.device else CPU)
