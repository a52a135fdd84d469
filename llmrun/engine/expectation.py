"""What the plan says of a request, so that every run shows it beside what is measured."""

from __future__ import annotations

import time
from dataclasses import replace

from llmrun.checkpoint.spec import ModelSpec
from llmrun.events import Accepted, Expected
from llmrun.hardware.speeds import Speeds
from llmrun.planner.draft_model import with_draft_peak
from llmrun.planner.drafting import MOST_ACCEPTANCE, seen_acceptance
from llmrun.planner.plan import CPU, DISK, Plan, Prediction, is_gpu
from llmrun.planner.predict import predict_plan


class Expectation:
    """Predicts the requests of one engine, the first of which finds the weights still coming in.

    Args:
        speeds: what was measured of this host.
        ready_s: when the engine was ready for a request.
        draft_model: what drafts, where another model does.
    """

    def __init__(
        self, spec: ModelSpec, plan: Plan, speeds: Speeds, ready_s: float, draft_model: ModelSpec | None = None
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._speeds = speeds
        self._ready_s = ready_s
        self._draft_model = draft_model

    def of(self, accepted: Accepted, new_tokens: int, *, first: bool, guesses: tuple[int, int] = (0, 0)) -> Expected:
        """The prediction for a request.

        Args:
            first: none came before it.
            guesses: that were right, of so many, in the requests before.
        """
        workload = replace(
            self._plan.workload,
            past_tokens=accepted.reused_tokens,
            prompt_tokens=accepted.prompt_tokens - accepted.reused_tokens,
            new_tokens=max(2, new_tokens),
        )
        idle_s = max(0.0, accepted.at_s - self._ready_s) if first else 0.0
        plan = _having_seen(self._plan, *guesses)
        prediction = predict_plan(self._spec, plan, self._speeds, workload, idle_s=idle_s)
        if self._draft_model:
            prediction = with_draft_peak(prediction, self._draft_model, workload)
        drafting = prediction.drafting
        return Expected(
            at_s=time.monotonic(),
            ttft_s=prediction.ttft_s if first else prediction.warm_ttft_s,
            tpot_s=_tpot_s(prediction, workload.new_tokens - 1, first=first),
            read_bytes_per_token=self._moved(prediction),
            peak_bytes=prediction.peak_bytes,
            tokens_per_pass=drafting.tokens_per_pass if drafting else None,
            plain_tpot_s=drafting.plain_tpot_s if drafting else None,
        )

    def _moved(self, prediction: Prediction) -> dict[str, int]:
        """What is read from disk, and from RAM to the GPUs; what stays where it is computed does not move."""
        copied = sum(
            self._spec.unit(placement.unit).nbytes
            for placement in self._plan.placements
            if is_gpu(placement.device) and not placement.resident
        )
        return {DISK: prediction.bytes_per_token.get(DISK, 0)} | ({CPU: copied} if copied else {})


def _tpot_s(prediction: Prediction, tokens: int, *, first: bool) -> float:
    drafting = prediction.drafting
    return drafting.first_tpot_s(prediction.tpot_s, tokens) if drafting and first else prediction.tpot_s


def _having_seen(plan: Plan, right: int, tried: int) -> Plan:
    """The plan, with guesses as often right as those were."""
    if not plan.prediction or not (drafting := plan.prediction.drafting):
        return plan
    acceptance = min(MOST_ACCEPTANCE, seen_acceptance(drafting.acceptance, right, tried))
    return replace(plan, prediction=replace(plan.prediction, drafting=replace(drafting, acceptance=acceptance)))
