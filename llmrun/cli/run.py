"""From a model's name to an engine that is reading it: the start that ``chat`` and ``bench`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmrun.cli.options import budget_within
from llmrun.settings import DEFAULT_CONTEXT_TOKENS, Budget, Workload

if TYPE_CHECKING:
    from llmrun.checkpoint import ModelSpec
    from llmrun.engine.engine import Engine
    from llmrun.planner import Plan

Notify = Callable[[str], None]


@dataclass(frozen=True)
class RunSettings:
    """What the command line says about a run; ``None`` is the default, which depends on the host and the model."""

    model: str | None = None
    ram_bytes: int | None = None
    vram_bytes: int | None = None
    context_tokens: int | None = None
    planner: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Running:
    """A model that is being run."""

    spec: ModelSpec
    budget: Budget
    plan: Plan
    engine: Engine


@contextmanager
def start(settings: RunSettings, notify: Notify, starting: Notify = lambda note: None) -> Iterator[Running]:
    """Find the model, plan it and start its engine, which reads weights while it still imports torch.

    Args:
        settings: what the user asks for.
        notify: told what is done to get a model that is not here yet.
        starting: told when the model is here and its engine starts, which takes seconds.

    Raises:
        LlmrunError: the model is not there or cannot run, nothing fits the budget, a device failed.
    """
    from llmrun.checkpoint import read_spec
    from llmrun.engine.start import start_engine
    from llmrun.hardware import default_budget, probe
    from llmrun.hub import resolve
    from llmrun.planner import DEFAULT_PLANNER, make_plan

    local = resolve(settings.model, notify=notify)
    spec = read_spec(local.folder, name=local.name, trust_remote_code=settings.trust_remote_code)
    budget = budget_within(default_budget(probe()), settings.ram_bytes, settings.vram_bytes)
    context_tokens = settings.context_tokens or min(DEFAULT_CONTEXT_TOKENS, spec.context_tokens)
    plan = make_plan(spec, Workload(context_tokens=context_tokens), budget, planner=settings.planner or DEFAULT_PLANNER)
    starting(f"starting {spec.name}")
    with start_engine(spec, plan, trust_remote_code=settings.trust_remote_code) as engine:
        yield Running(spec, budget, plan, engine)
