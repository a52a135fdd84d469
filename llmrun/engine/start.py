"""Starting an engine: the readers first, so that weights come in while torch is still being imported."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llmrun.checkpoint.spec import ModelSpec
from llmrun.checkpoint.tokenizer_files import check_tokenizer
from llmrun.errors import DeviceError
from llmrun.hardware.heap import keep_heap, trim_heap
from llmrun.hardware.process import process_io
from llmrun.hardware.speeds import Speeds
from llmrun.planner.draft_model import draft_model_plan
from llmrun.planner.plan import Plan
from llmrun.runtime.host import HostWeights
from llmrun.settings import SPECULATE_AUTO, Speculating

if TYPE_CHECKING:
    from llmrun.engine.engine import Engine
    from llmrun.runtime.accelerator import Accelerator


@contextmanager
def start_engine(
    spec: ModelSpec,
    plan: Plan,
    speeds: Speeds | None = None,
    *,
    speculating: Speculating = SPECULATE_AUTO,
    draft_model: ModelSpec | None = None,
    trust_remote_code: bool = False,
) -> Iterator[Engine]:
    """An engine that runs ``plan``, closed at the end; with ``speeds`` it predicts each request.

    Args:
        draft_model: drafts tokens; it is read beside the other from when the engine is ready.

    Raises:
        LlmrunError: the tokenizer or the model is broken or unknown, or a device of the plan is missing.
    """
    check_tokenizer(Path(spec.folder))  # before seconds go into imports and reads
    keep_heap()
    began_s, began_bytes = time.monotonic(), process_io() or 0
    with ExitStack() as stack:
        host = stack.enter_context(_weights(spec, plan))
        host.start()
        with _no_garbage_collection():
            from llmrun.engine.engine import Beginning, DraftModel, Engine

            accelerators = _accelerators(plan)
            began = Beginning(began_s, began_bytes)
            drafting = None
            if draft_model:
                draft_plan = draft_model_plan(draft_model, plan.workload)
                draft_host = stack.enter_context(_weights(draft_model, draft_plan))
                drafting = DraftModel(draft_model, draft_plan, draft_host)
            engine = Engine(
                spec,
                plan,
                host,
                accelerators,
                speeds=speeds,
                began=began,
                speculating=speculating,
                draft_model=drafting,
                trust_remote_code=trust_remote_code,
            )
        host.speed_up()
        if drafting:
            drafting.host.start()
            drafting.host.speed_up()
        trim_heap()
        try:
            yield engine
        finally:
            engine.close()


@contextmanager
def _weights(spec: ModelSpec, plan: Plan) -> Iterator[HostWeights]:
    """The weights of a model, closed at the end; they come in from when they are started."""
    host = HostWeights(spec, plan)
    try:
        yield host
    finally:
        host.close()


def let_go() -> None:
    """Give the memory of closed engines back, before another is started in the same process.

    An engine and its parts know each other, and what is there when one is ready is not looked at by the collector.
    """
    gc.unfreeze()
    gc.collect()
    trim_heap()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Imports make a million objects that live on; looking for garbage among them takes a quarter of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _accelerators(plan: Plan) -> dict[str, Accelerator]:
    import torch

    from llmrun.runtime.accelerator import CudaAccelerator

    missing = [name for name in plan.gpus if int(name.removeprefix("gpu:")) >= torch.cuda.device_count()]
    if missing:
        raise DeviceError(
            "device-missing",
            f"the plan computes on {', '.join(missing)}, but torch sees {torch.cuda.device_count()} GPUs",
            hint="`--vram 0` runs without a GPU",
        )
    return {name: CudaAccelerator(int(name.removeprefix("gpu:"))) for name in plan.gpus}
