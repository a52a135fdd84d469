"""The layers as letters, one each, so that a placement reads at a glance and without colour. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmrun.checkpoint.spec import ModelSpec, UnitKind
from llmrun.planner.plan import CPU, DISK, Placement, Plan, is_gpu

MANY = "#"  # GPUs beyond those that have a letter
_GPU_LETTERS = "GHIJKLMN"
_LETTERS = {  # (home, computed on a GPU, only in a prefill)
    (CPU, False, False): ("R", "in RAM, computed on the CPU"),
    (CPU, True, False): ("r", "in RAM, copied to a GPU for every token"),
    (CPU, False, True): ("P", "in RAM, copied to a GPU for a prompt"),
    (DISK, False, False): ("D", "read from disk for every token, computed on the CPU"),
    (DISK, True, False): ("d", "read from disk and copied to a GPU for every token"),
    (DISK, False, True): ("p", "read from disk for every token, copied to a GPU for a prompt"),
}


@dataclass(frozen=True)
class Cell:
    """One layer: its letter, what that means, and where the weights live."""

    letter: str
    meaning: str
    home: str


def cells(spec: ModelSpec, plan: Plan) -> list[Cell]:
    """One for each layer, in execution order."""
    return [cell(one) for one in plan.placements if spec.unit(one.unit).kind is UnitKind.LAYER]


def rows(n_cells: int, width: int) -> Iterator[range]:
    """The cells of each line: all in one if they fit, else in tens, so that a column tells which layer it is."""
    step = n_cells if n_cells <= width else max(10, width // 10 * 10)
    for begin in range(0, n_cells, max(1, step)):
        yield range(begin, min(begin + step, n_cells))


def cell(one: Placement) -> Cell:
    """How a unit is placed."""
    if is_gpu(one.home):
        index = int(one.home.removeprefix("gpu:"))
        if index >= len(_GPU_LETTERS):
            return Cell(MANY, f"on gpu:{len(_GPU_LETTERS)} or above", one.home)
        return Cell(_GPU_LETTERS[index], f"on {one.home}", one.home)
    if one.kept:
        return Cell(one.kept[1], f"in RAM in {one.kept}, computed on the CPU", one.home)
    if one.substitute:
        return Cell(
            "S", f"read from disk for every pass, computed on the CPU; in RAM in {one.substitute}, to draft", DISK
        )
    on_gpu = is_gpu(one.device)
    letter, meaning = _LETTERS[one.home, on_gpu, not on_gpu and is_gpu(one.prefill_device)]
    return Cell(letter, meaning, one.home)
