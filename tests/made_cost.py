"""Costs as plain lists of seconds, and candidates as one letter a stage: what the simulator is tested on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrun.planner.choices import Candidates, Choice, all_choices
from llmrun.planner.plan import CPU, DISK, is_gpu
from llmrun.planner.simulation.cost import NO_LINK, Cost, PassCost

LETTERS = {
    "R": Choice(CPU, CPU, CPU),  # resident in RAM
    "d": Choice(DISK, CPU, CPU),  # streamed from disk
    "0": Choice("gpu:0", "gpu:0", "gpu:0"),
    "1": Choice("gpu:1", "gpu:1", "gpu:1"),
    "a": Choice(CPU, "gpu:0", "gpu:0"),  # streamed from RAM to a GPU
    "b": Choice(CPU, "gpu:1", "gpu:1"),
    "x": Choice(DISK, "gpu:0", "gpu:0"),  # streamed from disk to a GPU
    "y": Choice(DISK, "gpu:1", "gpu:1"),
    "p": Choice(CPU, CPU, "gpu:0"),  # the prompt on a GPU, tokens on the CPU
    "q": Choice(DISK, CPU, "gpu:0"),
}
GPUS = ("gpu:0", "gpu:1")

Seconds = Sequence[float]


def made_cost(
    read: Seconds,
    decode: Sequence[Seconds],
    prefill: Sequence[Seconds] | None = None,
    *,
    copy: Seconds = (),
    hop: float = 0.0,
    startup: float = 0.0,
    rate: float = 1.0,
    lead: float = 0.0,
    token: float = 0.0,
    idle: float = 0.0,
    rounding: Seconds = (),
) -> Cost:
    """``read[stage]``, ``copy[stage]``, and for each device (the CPU first) the computation ``[device][stage]``.

    With ``rounding[stage]`` there is one more choice, to keep a stage in RAM in another format.
    """
    gpus = GPUS[: len(decode) - 1]
    choices = all_choices(gpus, ["q8"] if len(rounding) else ())
    copies = np.array(copy if len(copy) else [0.0] * len(read))[:, None]

    def one_pass(compute: Sequence[Seconds], devices: list[str]) -> PassCost:
        numbers = np.array([gpus.index(device) + 1 if is_gpu(device) else 0 for device in devices])
        moves = np.array([is_gpu(device) and device != c.home for device, c in zip(devices, choices, strict=True)])
        return PassCost(
            compute_s=np.array(compute, dtype=float)[numbers].T,
            copy_s=copies * moves,
            link=np.where(moves, numbers - 1, NO_LINK),
            hop_s=hop * (numbers[:, None] != numbers),
            device=numbers,
        )

    homes = [choice.home for choice in choices]
    return Cost(
        read_s=np.array(read, dtype=float),
        streamed=np.array([home == DISK for home in homes]),
        in_ram=np.array([choice.home == CPU and not choice.kept for choice in choices]),
        load_s=copies * np.array([is_gpu(home) for home in homes]) + _rounded(rounding, choices),
        load_link=np.array([gpus.index(home) if is_gpu(home) else NO_LINK for home in homes]),
        prefill=one_pass(decode if prefill is None else prefill, [choice.prefill_device for choice in choices]),
        decode=one_pass(decode, [choice.device for choice in choices]),
        startup_s=startup,
        startup_rate=rate,
        lead_s=lead,
        token_s=token,
        n_gpus=len(gpus),
        idle_s=idle,
    )


def _rounded(rounding: Seconds, choices: Sequence[Choice]) -> np.ndarray:
    return np.array(rounding)[:, None] * [c.kept is not None for c in choices] if len(rounding) else np.zeros(1)


def codes_of(letters: str, n_gpus: int) -> list[int]:
    """One letter a stage, as codes into the choices of so many GPUs."""
    choices = all_choices(GPUS[:n_gpus])
    return [choices.index(LETTERS[letter]) for letter in letters]


def candidates(letters: Sequence[str], n_gpus: int = 0, host_slots: int = 2, gpu_slots: int = 2) -> Candidates:
    """Some candidates with rings alike."""
    codes = np.array([codes_of(word, n_gpus) for word in letters])
    return Candidates(codes, np.full(len(codes), host_slots), np.full(len(codes), gpu_slots))
