"""A model that passes can be made over: what computes, its KV cache, and where its weights are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmrun.checkpoint.spec import ModelSpec
from llmrun.engine.forward import Forward
from llmrun.events import Event
from llmrun.models.skeleton import build_skeleton
from llmrun.planner.plan import Plan
from llmrun.runtime.accelerator import Accelerator
from llmrun.runtime.host import HostWeights
from llmrun.runtime.kv_cache import KVCache
from llmrun.runtime.residency import Residency


@dataclass(frozen=True)
class LoadedModel:
    """The parts of one model; an engine has one, and another where that drafts."""

    spec: ModelSpec
    plan: Plan
    cache: KVCache
    residency: Residency
    forward: Forward


def load_model(
    spec: ModelSpec,
    plan: Plan,
    host: HostWeights,
    accelerators: Mapping[str, Accelerator],
    emit: Callable[[Event], None],
    cancel: threading.Event,
    *,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """The model of ``spec`` by ``plan``, with the weights that ``host`` brings in; ``residency`` is to be closed.

    Args:
        emit: takes the events of its passes.
        cancel: set from another thread to break a pass off.

    Raises:
        CheckpointError: ``unsupported-architecture``.
    """
    cache = KVCache(spec, plan, accelerators)
    residency = Residency(spec, plan, host, accelerators, cache, emit, cancel)
    skeleton = build_skeleton(spec, residency, trust_remote_code=trust_remote_code)
    forward = Forward(spec, skeleton, residency, cache, plan.workload.prefill_chunk_tokens)
    return LoadedModel(spec, plan, cache, residency, forward)
