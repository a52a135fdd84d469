"""What drafts give: the model in fewer bits, or a smaller one, guesses tokens, a pass over the weights checks them.

A pass over what streams takes about as long for several tokens as for one. With k guesses, each of which is right with
probability a where those before it were, it gives E(k) = 1 + a + ... + a^k tokens (Leviathan et al. 2023, arXiv
2211.17192, eq. 1), and takes what the pipeline takes for k + 1 tokens where the next pass begins k guesses later;
reading goes on meanwhile. The k with the shortest time for a token is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmrun.checkpoint.kept import is_kept, kept_model, kept_unit, layer_shape
from llmrun.checkpoint.spec import ModelSpec
from llmrun.hardware.speeds import Speeds
from llmrun.planner.choices import candidate_of, stages
from llmrun.planner.plan import CPU, Busy, Drafting, Placement, Prediction, Slots, is_gpu
from llmrun.planner.simulation.busy import busy_seconds, resources
from llmrun.planner.simulation.cost import cost, read_seconds, rounding_seconds
from llmrun.planner.simulation.simulate import simulate
from llmrun.settings import Precision, Workload

SUBSTITUTE = "q4"
"""The format of substitutes, as ``--format`` has it."""

ACCEPTANCE = 0.85
"""Of places guessed at in that format, before any were seen of a model: 6 tokens from a pass, fewer than small models
give (`benchmarks/speculation.py`).
"""

MODEL_ACCEPTANCE = 0.7
"""Of guesses by a small model for a large one of its family, before any were seen of the two."""

MOST_ACCEPTANCE = 0.98
"""What is seen of a short text is no promise."""

PRIOR_GUESSES = 50
"""So many weighs what was taken before anything was seen."""


@dataclass(frozen=True)
class Small:
    """What another model takes to draft: for a guess, to come in, and to read a token of the prompt."""

    guess_s: float
    load_s: float
    prompt_token_s: float


@dataclass(frozen=True)
class Guesses:
    """How tokens are guessed: of so many that are right so often, the number that serves best."""

    lengths: tuple[int, ...]
    acceptance: float = ACCEPTANCE
    plain_tpot_s: float | None = None  # of the best plan without
    small: Small | None = None  # guesses; ``None``: substitutes do


def seen_acceptance(before: float, right: float, tried: float) -> float:
    """The share that is taken to be right after so many of so many were, and ``before`` was taken."""
    return (right + PRIOR_GUESSES * before) / (tried + PRIOR_GUESSES)


def lengths_to(most: int) -> tuple[int, ...]:
    """Lengths to weigh: few, since neighbours hardly differ."""
    return tuple(sorted({min(most, k) for k in (1, 2, 3, 4, 5, 7, 9, 11, 15, 23, 31, 63, 127, 255)}))


def can_substitute(spec: ModelSpec, precision: Precision) -> bool:
    """Whether every layer and the head can be copied in fewer bits than whatever may be kept.

    Not those of a mixture of experts: a pass over several tokens reads more of them.
    """
    if any(unit.flops_per_token < unit.n_params for unit in stages(spec)):
        return False
    copy_bytes = kept_model(spec, SUBSTITUTE).nbytes
    fewest = all(kept_model(spec, name).nbytes > copy_bytes for name in precision.kept_formats)
    return fewest and all(is_kept(spec, unit, SUBSTITUTE) for unit in stages(spec))


def with_drafts(
    prediction: Prediction,
    spec: ModelSpec,
    placements: Sequence[Placement],
    slots: Slots,
    speeds: Speeds,
    workload: Workload,
    guesses: Guesses,
    *,
    fine: bool = True,
) -> Prediction:
    """The prediction of placements when substitutes, or another model, guess tokens.

    Args:
        prediction: without guesses.

    Raises:
        KeyError: a GPU of the placements was not measured.
    """
    small = guesses.small
    guess_s = small.guess_s if small else _guess_s(spec, placements, slots, speeds, workload, fine=fine)
    making_s = sum(_making_s(spec, placements, speeds))
    choices, candidate = candidate_of(spec, placements, slots)
    gpus = _gpus(placements)

    def with_length(count: int) -> Prediction:
        costs = cost(spec, speeds, workload, choices, gpus, fine=fine, decode_tokens=count + 1)
        costs = replace(costs, token_s=costs.token_s + count * guess_s)
        pass_s = float(simulate(costs, candidate).tpot_s[0])
        drafting = Drafting(
            count,
            guesses.acceptance,
            count * guess_s,
            pass_s,
            making_s,
            guesses.plain_tpot_s,
            alone_s=prediction.tpot_s,
            load_s=small.load_s if small else 0.0,
            prompt_token_s=small.prompt_token_s if small else 0.0,
        )
        tokens = drafting.tokens_per_pass
        busy = busy_seconds(costs, candidate)[0]
        busy[resources(gpus).index(CPU)] += count * guess_s
        return replace(
            prediction,
            ttft_s=prediction.ttft_s + _late_s(drafting, prediction, spec, speeds),
            tpot_s=pass_s / tokens + _prompt_s(drafting, workload) / max(1, workload.new_tokens - 1),
            bytes_per_token={tier: round(nbytes / tokens) for tier, nbytes in prediction.bytes_per_token.items()},
            busy=tuple(Busy(name, float(s) / tokens) for name, s in zip(resources(gpus), busy, strict=True)),
            drafting=drafting,
        )

    return min(map(with_length, guesses.lengths), key=lambda found: found.tpot_s)


def _late_s(drafting: Drafting, prediction: Prediction, spec: ModelSpec, speeds: Speeds) -> float:
    """By so much the first token is later where another model comes in meanwhile: the disk serves both."""
    disk_s = drafting.load_s + sum(read_seconds(unit, speeds) for unit in spec.units)
    return min(drafting.load_s, max(0.0, disk_s - prediction.ttft_s))


def _prompt_s(drafting: Drafting, workload: Workload) -> float:
    return drafting.prompt_token_s * workload.prompt_tokens * workload.batch


def _guess_s(
    spec: ModelSpec,
    placements: Sequence[Placement],
    slots: Slots,
    speeds: Speeds,
    workload: Workload,
    *,
    fine: bool,
) -> float:
    """A pass over one token from RAM alone: substitutes, which meet states in 8 bits, and what stays as it is."""
    inside = [replace(p, home=CPU, kept=p.substitute, substitute=None) if p.substitute else p for p in placements]
    choices, candidate = candidate_of(spec, inside, slots)
    by_unit = {placement.unit: placement for placement in placements}
    copied = np.array([by_unit[unit.name].substitute is not None for unit in stages(spec)])
    total_s = 0.0
    for those, finely in ((~copied, fine), (copied, False)):
        costs = cost(spec, speeds, workload, choices, _gpus(placements), fine=finely)
        compute_s = np.take_along_axis(costs.decode.compute_s, candidate.codes.T, axis=1)[:, 0]
        total_s += float(compute_s[those].sum())
    return total_s + speeds.token_s


def _making_s(spec: ModelSpec, placements: Sequence[Placement], speeds: Speeds) -> Iterator[float]:
    for placement in placements:
        if placement.substitute:
            unit = spec.unit(placement.unit)
            own = speeds.layer(layer_shape(spec, placement.substitute, fine=False))
            yield rounding_seconds(unit, kept_unit(unit, placement.substitute), own)


def _gpus(placements: Sequence[Placement]) -> list[str]:
    used = {device for placement in placements for device in (placement.device, placement.prefill_device)}
    return sorted(device for device in used if is_gpu(device))
