"""Planning problems drawn from a seed: sizes, bandwidths and budgets of all kinds, from numbers alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from hosts import CPU_SPEED, GPU_SPEED, SPEEDS
from tiny_spec import model

from llmrun.checkpoint.spec import ModelSpec
from llmrun.hardware.speeds import DeviceSpeed, Speeds
from llmrun.planner.choices import Candidates
from llmrun.planner.memory import CUDA_CONTEXT_BYTES, process_bytes, workspace_bytes
from llmrun.planner.problem import GPU_SLOTS, HOST_SLOTS, Objective, Problem, make_problem
from llmrun.planner.scenarios import Bandwidth, scenarios, slower
from llmrun.settings import LOSSLESS, Budget, Precision, Quality, Workload
from llmrun.units import MIB

OBJECTIVES = tuple(Objective)
PRECISIONS = (*map(Precision, Quality), Precision(format="q4"), Precision(Quality.SMALL, "q8"))


def draw_problem(
    seed: int,
    n_layers: int,
    n_gpus: int,
    *,
    robust: bool = False,
    precision: Precision = LOSSLESS,
    substitute: str | None = None,
) -> Problem:
    random = np.random.default_rng(seed)
    spec = _spec(random, n_layers, 256 if precision.kept_formats or substitute else 1)
    gpus = [f"gpu:{k}" for k in range(n_gpus)]
    devices = (
        CPU_SPEED,
        *(_faster(random, replace(SPEEDS, devices=(CPU_SPEED, replace(GPU_SPEED, device=g)))) for g in gpus),
    )
    speeds = _bandwidths(random, replace(SPEEDS, devices=devices, startup_s=float(random.choice([0.0, 0.3, 2.5]))))
    workload = Workload(context_tokens=1024, prompt_tokens=int(random.choice([16, 512])), new_tokens=64)
    beside = workspace_bytes(spec, workload) + spec.kv_bytes_per_token * 1024
    ram = process_bytes(spec, workload) + beside + int(random.uniform(0.0, 1.2) * spec.nbytes)
    vram = {gpu: max(MIB, CUDA_CONTEXT_BYTES + beside + int(random.uniform(-0.1, 1.0) * spec.nbytes)) for gpu in gpus}
    given = scenarios(speeds) if robust else (speeds,)
    goal = OBJECTIVES[seed % len(OBJECTIVES)]
    return make_problem(spec, workload, Budget(ram, vram), given, goal, precision, substitute)


def every_candidate(problem: Problem) -> Candidates:
    """All of them; few only where the problem is tiny."""
    gpu_slots = GPU_SLOTS if problem.costs[0].n_gpus else GPU_SLOTS[:1]
    stages = [np.flatnonzero(row).tolist() for row in problem.allowed]
    rows = np.array(list(product(*stages, HOST_SLOTS, gpu_slots)))
    return Candidates(rows[:, :-2], rows[:, -2], rows[:, -1])


def any_candidates(problem: Problem, seed: int, count: int) -> Candidates:
    """Some at random, each with a few choices only, since others hardly ever fit."""
    random = np.random.default_rng(seed)
    n, n_choices = problem.allowed.shape
    weights = random.dirichlet(np.full(n_choices, 0.3), size=count)
    codes = np.stack([random.choice(n_choices, size=n, p=row) for row in weights])
    codes = np.where(problem.allowed[np.arange(n), codes], codes, 0)
    return Candidates(codes, random.choice(HOST_SLOTS, count), random.choice(GPU_SLOTS, count))


def _spec(random: np.random.Generator, n_layers: int, columns: int) -> ModelSpec:
    size = int(random.uniform(10, 300)) * MIB
    kinds = {"alike": [1.0], "two": [1.0, random.uniform(0.3, 3)], "unlike": random.uniform(0.3, 2, n_layers).tolist()}
    factors = kinds[str(random.choice(list(kinds)))]
    sizes = [int(size * factors[layer % len(factors)]) // 4096 * 4096 for layer in range(n_layers)]
    head = int(random.uniform(0.2, 3) * size) // 4096 * 4096
    spec = model(sizes, head, kv_bytes_per_token=int(random.choice([0, 1024, 65536])), columns=columns)
    used = float(random.choice([0.2, 1.0]))  # of the weights, for one token
    units = tuple(replace(unit, flops_per_token=int(unit.nbytes * used)) for unit in spec.units)
    return replace(spec, units=units)


def _faster(random: np.random.Generator, speeds: Speeds) -> DeviceSpeed:
    factors = {Bandwidth.MEMORY: float(random.uniform(0.3, 3)), Bandwidth.LINK: float(random.uniform(0.3, 10))}
    return slower(speeds, factors).devices[1]


def _bandwidths(random: np.random.Generator, speeds: Speeds) -> Speeds:
    disk = slower(speeds, {Bandwidth.DISK: float(np.exp(random.uniform(-1.5, 2.5)))})
    return replace(disk, reading_slowdown=float(random.uniform(1.0, 1.5)))
