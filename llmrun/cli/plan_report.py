"""What ``llmrun plan --json`` prints. Bytes are ints, times are seconds; the same inputs give the same text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmrun.checkpoint.spec import ModelSpec
from llmrun.planner.compare import Comparison
from llmrun.planner.plan import Certificate, Plan, Prediction
from llmrun.planner.what_if import WhatIf

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PlanReport:
    """A plan and what was asked about it; ``None`` is what was not asked."""

    spec: ModelSpec
    plan: Plan
    hardware: str  # in words
    comparisons: Sequence[Comparison] | None = None
    what_ifs: Sequence[WhatIf] | None = None


def plan_report_json(report: PlanReport) -> str:
    """The report as one JSON object; ``plan`` in it is what ``--output`` writes and ``--plan`` reads."""
    spec, plan = report.spec, report.plan
    value: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "model": {
            "name": spec.name,
            "architecture": spec.architecture,
            "dtype": spec.dtype,
            "formats": spec.weight_formats,
            "parameters": spec.n_params,
            "weight_bytes": spec.nbytes,
            "layers": spec.n_layers,
        },
        "hardware": report.hardware,
        **_figures(plan),
        "plan": asdict(plan),
    }
    if report.comparisons is not None:
        value["compare"] = [_comparison(one) for one in report.comparisons]
    if report.what_ifs is not None:
        value["what_if"] = [_what_if(one) for one in report.what_ifs]
    return json.dumps(value, indent=1)


def _figures(plan: Plan) -> dict[str, Any]:
    return {"prediction": _prediction(plan.prediction), "certificate": _certificate(plan.certificate)}


def _prediction(prediction: Prediction | None) -> dict[str, Any] | None:
    if prediction is None:
        return None
    derived = {"decode_tokens_per_s": prediction.decode_tokens_per_s, "bottleneck": prediction.bottleneck}
    return asdict(prediction) | derived


def _certificate(certificate: Certificate | None) -> dict[str, Any] | None:
    return asdict(certificate) | {"gap": certificate.gap} if certificate else None


def _comparison(one: Comparison) -> dict[str, Any]:
    if one.plan is None:
        return {"planner": one.planner, "not_run": one.reason}
    return {"planner": one.planner, **_figures(one.plan)}


def _what_if(one: WhatIf) -> dict[str, Any]:
    return {"change": one.change.name, "text": one.change.text, "prediction": _prediction(one.prediction)}
