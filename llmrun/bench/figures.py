"""From the samples of a case to its row; ``docs/bench.md`` has the formula of each figure. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import mean, median

import numpy as np

from llmrun import __version__
from llmrun.bench.ceiling import Ceiling
from llmrun.bench.row import Row
from llmrun.bench.sample import Sample
from llmrun.checkpoint.spec import ModelSpec
from llmrun.planner.plan import CPU, Plan


@dataclass(frozen=True)
class Setup:
    """What all cases of one engine share."""

    spec: ModelSpec
    plan: Plan
    cpu_info: str
    gpu_info: str
    n_threads: int
    seed: int
    cold: bool = False
    sweep: str | None = None


def make_row(setup: Setup, samples: Sequence[Sample], ceiling: Ceiling | None, began: datetime) -> Row:
    """The row of a case.

    Args:
        samples: of one case, at least one.
        ceiling: ``None`` where nothing was measured of the machine.
        began: when it began, in UTC.
    """
    spec, plan, case = setup.spec, setup.plan, samples[0].case
    seconds = sum(sample.seconds for sample in samples)
    tpot_s = _median(sample.tpot_s for sample in samples)
    gaps_s = [gap_s for sample in samples for gap_s in sample.gaps_s]
    speculated = [sample.state.speculation for sample in samples if sample.state.speculation]
    return Row(
        model_filename=spec.folder,
        model_type=model_type(spec, plan),
        model_size=spec.nbytes,
        model_n_params=spec.n_params,
        cpu_info=setup.cpu_info,
        gpu_info=setup.gpu_info,
        n_threads=setup.n_threads,
        n_ctx=plan.workload.context_tokens,
        n_prompt=case.n_prompt,
        n_gen=case.n_gen,
        n_depth=case.n_depth,
        test_time=began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        samples_ns=tuple(max(1, round(sample.seconds * 1e9)) for sample in samples),
        ttft_ms=_ms(_median(sample.ttft_s for sample in samples)),
        tpot_ms=_ms(tpot_s),
        itl_ms=_ms(_median(gaps_s)),
        itl_p99_ms=_ms(float(np.percentile(gaps_s, 99)) if gaps_s else None),
        ceiling_ts=ceiling.tokens_per_s if ceiling else None,
        mbu=ceiling.mbu(tpot_s) if ceiling else None,
        predicted_ts=_rate(case.n_tokens, samples[-1].predicted_s),
        disk_bytes_per_token=sum(sample.disk_bytes for sample in samples) / (len(samples) * case.n_tokens),
        stall_share=sum(sample.stall_s for sample in samples) / seconds if seconds > 0 else None,
        ram_peak_bytes=_peak_bytes(samples, [CPU]),
        ram_budget_bytes=_budget_bytes(plan, [CPU]),
        vram_peak_bytes=_peak_bytes(samples, plan.gpus) if plan.gpus else None,
        vram_budget_bytes=_budget_bytes(plan, plan.gpus) if plan.gpus else None,
        cache_state="cold" if setup.cold else "warm",
        plan_id=plan_id(plan),
        planner=plan.planner,
        seed=setup.seed,
        llmrun_version=__version__,
        sweep=setup.sweep,
        tokens_per_pass=_mean(done.tokens_per_pass for done in speculated),
        draft_acceptance=_mean(done.acceptance for done in speculated),
    )


def model_type(spec: ModelSpec, plan: Plan) -> str:
    """Family, size and formats: ``llama 135M BF16``, ``llama 7.0B BF16, q4 in RAM, quality balanced``."""
    n_params = spec.n_params
    size = f"{n_params / 1e9:.1f}B" if n_params >= 1e9 else f"{n_params / 1e6:.0f}M"
    kind = f"{spec.model_type} {size} {spec.format_words}"
    return f"{kind}, {plan.precision_words}" if plan.precision_words else kind


def plan_id(plan: Plan) -> str:
    """12 hexadecimal digits of what a plan lets happen; how it was found and the budget are not in it."""
    what = [
        plan.fingerprint,
        asdict(plan.workload),
        [asdict(p) for p in plan.placements],
        [asdict(r) for r in plan.rings],
    ]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def _peak_bytes(samples: Sequence[Sample], devices: Sequence[str]) -> int:
    """Over all samples, of these devices together."""
    peaks = (sample.state.memory for sample in samples)
    return max(sum(memory[device].peak_bytes for device in devices if device in memory) for memory in peaks)


def _budget_bytes(plan: Plan, devices: Sequence[str]) -> int:
    return sum(memory.budget_bytes for memory in plan.memory if memory.device in devices)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _rate(tokens: int, seconds: float | None) -> float | None:
    return tokens / seconds if seconds else None
