"""What ``llmrun chat --json`` prints: the answer and its figures as one JSON object."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from llmrun.checkpoint.spec import ModelSpec
from llmrun.metrics import MetricsState, Phase
from llmrun.planner.plan import Plan

SCHEMA_VERSION = 2


def report_json(spec: ModelSpec, plan: Plan, text: str, state: MetricsState) -> str:
    """One object in one line; figures that are not known are ``null``, bytes are ints, times are seconds."""
    return json.dumps(report(spec, plan, text, state), ensure_ascii=False)


def report(spec: ModelSpec, plan: Plan, text: str, state: MetricsState) -> dict[str, Any]:
    """The object: answer, figures, memory, model, plan."""
    return {
        "schema": SCHEMA_VERSION,
        "text": text,
        "finish_reason": state.finish_reason,
        "prompt_tokens": state.prompt_tokens,
        "reused_tokens": state.reused_tokens,
        "new_tokens": state.new_tokens,
        "ttft_s": state.ttft_s,
        "tpot_s": state.tpot_s,
        "itl_max_s": state.itl_max_s,
        "prefill_tokens_per_s": state.prefill_tokens_per_s,
        "decode_tokens_per_s": state.decode_tokens_per_s,
        "read_bytes": dict(state.read_bytes),
        "read_bytes_per_token": state.read_bytes_per_token,
        "predicted": _predicted(state),
        "speculation": _speculation(state),
        "stall_share": {"prefill": _stall_share(state.prefill), "decode": _stall_share(state.decode)},
        "memory": {
            device: {"peak_bytes": sample.peak_bytes, "budget_bytes": sample.budget_bytes}
            for device, sample in state.memory.items()
        },
        "model": {
            "name": spec.name,
            "architecture": spec.architecture,
            "dtype": spec.dtype,
            "formats": spec.weight_formats,
            "parameters": spec.n_params,
            "weight_bytes": spec.nbytes,
        },
        "plan": asdict(plan),
    }


def _predicted(state: MetricsState) -> dict[str, Any] | None:
    """The same figures as the plan has them for this request."""
    if state.expected is None:
        return None
    return {
        "ttft_s": state.expected.ttft_s,
        "tpot_s": state.expected.tpot_s,
        "decode_tokens_per_s": 1 / state.expected.tpot_s,
        "read_bytes_per_token": dict(state.expected.read_bytes_per_token),
        "peak_bytes": dict(state.expected.peak_bytes),
        "tokens_per_pass": state.expected.tokens_per_pass,
        "plain_tpot_s": state.expected.plain_tpot_s,
    }


def _speculation(state: MetricsState) -> dict[str, Any] | None:
    """``null`` where nothing is drafted; ``acceptance`` by place in the draft."""
    done = state.speculation
    if done is None:
        return None
    return {
        "passes": done.passes,
        "tokens_per_pass": done.tokens_per_pass,
        "drafted_tokens": sum(done.drafted),
        "accepted_tokens": sum(done.accepted),
        "acceptance_by_place": list(done.acceptance_by_place),
        "draft_s": done.draft_s,
        "verify_s": done.verify_s,
    }


def _stall_share(phase: Phase | None) -> float | None:
    return phase.stall_share if phase else None
