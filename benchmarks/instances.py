"""Planning problems made from numbers alone: models, hosts and budgets of all kinds, from a seed.

Models have 4 to 126 layers: alike, or unequal as those of mixtures of experts (large layers of which a token uses a
part) and hybrids (layers of two sizes, attention in some). Hosts have 0, 1 or 2 GPUs and bandwidths from a Raspberry
Pi's to a server's. Budgets leave 5 % to 120 % of the model to its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from llmrun.checkpoint.spec import ModelSpec, TensorSpec, UnitKind, UnitSpec
from llmrun.hardware.speeds import DeviceSpeed, DiskSpeed, LinkSpeed, Speeds, Spread, WeightSpeed
from llmrun.planner.memory import CUDA_CONTEXT_BYTES, kv_bytes, process_bytes, workspace_bytes
from llmrun.planner.problem import Objective, Problem, make_problem
from llmrun.planner.scenarios import scenarios
from llmrun.planner.searches.lean import leanest
from llmrun.settings import Budget, Workload

GB = 10**9
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SPREAD = 1.5  # of the bandwidths of an instance, between the median and the slow or fast tenth

Random = np.random.Generator


@dataclass(frozen=True)
class Instance:
    """A planning problem of the study."""

    seed: int
    kind: str
    spec: ModelSpec
    speeds: Speeds
    workload: Workload
    budget: Budget

    @property
    def n_gpus(self) -> int:
        """GPUs that may be used."""
        return len(self.budget.vram_bytes)

    def problem(self, objective: Objective = Objective.TOTAL, *, robust: bool = False) -> Problem:
        """As measured exactly, or as the mean over the spread of what was measured."""
        given = scenarios(self.speeds) if robust else (self.speeds,)
        return make_problem(self.spec, self.workload, self.budget, given, objective)


def make_instance(seed: int, *, small: bool = False) -> Instance:
    """The instance of a seed, one that something fits; ``small`` ones can be solved by trying everything."""
    random = np.random.default_rng([seed, small])
    while True:
        instance = _draw(random, seed, small)
        problem = instance.problem()
        if problem.fit.fits(leanest(problem))[0]:
            return instance


def _draw(random: Random, seed: int, small: bool) -> Instance:
    n_gpus = int(random.choice([0, 0, 1, 1, 2]))
    n_layers = int(random.integers(3, 7 if n_gpus == 0 else 5 if n_gpus == 1 else 4)) if small else _n_layers(random)
    kind = str(random.choice(list(KINDS)))
    spec = KINDS[kind](random, n_layers)
    gpus = [f"gpu:{k}" for k in range(n_gpus)]
    workload = Workload(context_tokens=int(random.choice([1024, 4096, 16384])))
    speeds = _speeds(random, gpus)
    return Instance(seed, kind, spec, speeds, workload, _budget(random, spec, workload, gpus))


def _n_layers(random: Random) -> int:
    return int(random.choice([4, 8, 12, 16, 22, 24, 28, 32, 36, 40, 48, 60, 64, 80, 94, 126]))


def _alike(random: Random, n_layers: int) -> ModelSpec:
    """Every layer the same."""
    nbytes = _layer_bytes(random)
    return _model(random, [nbytes] * n_layers, [1.0] * n_layers, [1.0] * n_layers)


def _experts(random: Random, n_layers: int) -> ModelSpec:
    """A few dense layers, then mixtures of experts many times their size, of which a token uses a part."""
    dense = _layer_bytes(random) / 3
    n_dense = min(int(random.integers(0, 4)), n_layers - 1)
    factor, active = random.uniform(4, 12), random.uniform(0.05, 0.4)
    sizes = [dense] * n_dense + [dense * factor] * (n_layers - n_dense)
    return _model(random, sizes, [1.0] * n_dense + [active] * (n_layers - n_dense), [1.0] * n_layers)


def _hybrid(random: Random, n_layers: int) -> ModelSpec:
    """Attention in every few layers; the others are of another size and keep no KV cache."""
    nbytes, factor, every = _layer_bytes(random), random.uniform(0.4, 1.8), int(random.integers(2, 6))
    attention = [layer % every == every - 1 for layer in range(n_layers)]
    sizes = [nbytes if has else nbytes * factor for has in attention]
    return _model(random, sizes, [1.0] * n_layers, [float(has) for has in attention])


def _uneven(random: Random, n_layers: int) -> ModelSpec:
    """Every layer of its own size, as pruned models have."""
    sizes = _layer_bytes(random) * random.uniform(0.3, 1.7, n_layers)
    return _model(random, list(sizes), [1.0] * n_layers, [1.0] * n_layers)


KINDS: dict[str, Callable[[Random, int], ModelSpec]] = {
    "alike": _alike,
    "experts": _experts,
    "hybrid": _hybrid,
    "uneven": _uneven,
}


def _layer_bytes(random: Random) -> float:
    return float(np.exp(random.uniform(np.log(20e6), np.log(1.8e9))))


def _model(random: Random, sizes: list[float], active: list[float], kv: list[float]) -> ModelSpec:
    hidden = int(random.choice([1024, 2048, 4096, 8192]))
    kv_bytes = int(random.choice([1024, 2048, 4096]))
    head = _tensor("head", int(random.choice([32000, 128256])) * hidden * 2)
    embedding = replace(head, name="embedding", file="embedding")
    layers = []
    for layer, (size, share, has_kv) in enumerate(zip(sizes, active, kv, strict=True)):
        tensor = _tensor(f"layer {layer}", int(size))
        flops = int(tensor.nbytes * share)  # two for each active parameter of two bytes
        layers.append(UnitSpec(tensor.name, UnitKind.LAYER, layer, (tensor,), flops, int(kv_bytes * has_kv)))
    return ModelSpec(
        name="numbers",
        folder="",
        architecture="",
        model_type="",
        dtype="BF16",
        n_layers=len(layers),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        n_heads=hidden // 128,
        n_kv_heads=max(1, kv_bytes // 512),
        head_dim=128,
        vocab_size=head.nbytes // hidden // 2,
        context_tokens=131072,
        tied_embeddings=False,
        embedding=embedding,
        units=(
            UnitSpec("embedding", UnitKind.EMBEDDING, None, (embedding,), 0),
            UnitSpec("rest", UnitKind.REST, None, (_tensor("rest", 4096),), 0),
            *layers,
            UnitSpec("head", UnitKind.HEAD, None, (head,), head.nbytes),
        ),
    )


def _tensor(name: str, nbytes: int) -> TensorSpec:
    nbytes = max(4096, nbytes // 4096 * 4096)
    return TensorSpec(name, name, 0, nbytes, "BF16", (nbytes // 2,))


def _speeds(random: Random, gpus: list[str]) -> Speeds:
    disk = float(random.choice([0.09, 0.4, 0.53, 1.0, 1.7, 3.4, 7.0, 13.0])) * GB
    return Speeds(
        measured_at="",
        host="numbers",
        disk=DiskSpeed(_spread(disk), disk * random.uniform(0.4, 1.0), 1e-4),
        devices=(_cpu(random), *(_gpu(random, gpu) for gpu in gpus)),
        reading_slowdown=float(random.uniform(1.0, 1.4)),
        startup_s=float(random.uniform(2, 6)),
        token_s=float(random.uniform(3e-4, 3e-3)),
    )


def _cpu(random: Random) -> DeviceSpeed:
    memory, flops = _log_uniform(random, 8 * GB, 300 * GB), _log_uniform(random, 2e10, 6e12)
    return _device(random, "cpu", memory, flops, layer_s=_log_uniform(random, 1e-4, 1e-3))


def _gpu(random: Random, gpu: str) -> DeviceSpeed:
    memory, flops = _log_uniform(random, 100 * GB, 3000 * GB), _log_uniform(random, 4e12, 4e14)
    host_to_device = float(random.choice([3.0, 6.0, 12.0, 25.0, 50.0])) * GB
    pageable = host_to_device / 3
    link = LinkSpeed(_spread(host_to_device), pageable, host_to_device, pageable, 1e-5)
    return replace(_device(random, gpu, memory, flops, layer_s=_log_uniform(random, 1e-4, 6e-4)), link=link)


def _device(random: Random, name: str, memory: float, flops: float, *, layer_s: float) -> DeviceSpeed:
    matrix = memory * random.uniform(0.5, 0.9)
    curve = tuple(float(min(matrix, flops / tokens)) for tokens in TOKENS)
    return DeviceSpeed(
        device=name,
        name=name,
        memory_bytes_per_s=_spread(memory),
        weights=(WeightSpeed("BF16", TOKENS, curve),),
        kv_bytes_per_s=matrix / 2,
        attention_flops_per_s=flops / 3,
        layer_s=layer_s,
        element_s=1 / flops * 20,
    )


def _spread(value: float) -> Spread:
    return Spread(value / SPREAD, value, value * SPREAD)


def _log_uniform(random: Random, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _budget(random: Random, spec: ModelSpec, workload: Workload, gpus: list[str]) -> Budget:
    """A share of the weights on each device, and what is taken there beside weights."""
    beside = workspace_bytes(spec, workload) + sum(kv_bytes(unit, workload) for unit in spec.units)
    ram = int(random.uniform(0.05, 1.2) * spec.nbytes) + process_bytes(spec, workload)
    vram = {gpu: int(random.uniform(0.02, 0.9) / len(gpus) * spec.nbytes) + CUDA_CONTEXT_BYTES for gpu in gpus}
    return Budget(ram + beside, {gpu: nbytes + beside for gpu, nbytes in vram.items()})
