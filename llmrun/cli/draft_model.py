"""The small model of ``--speculate MODEL``: found as the large one is, and held against its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmrun.cli.machine import Machine, own_layer
from llmrun.cli.repack import runnable_spec
from llmrun.errors import LlmrunError, Row
from llmrun.settings import Speculating

if TYPE_CHECKING:
    from llmrun.checkpoint import ModelSpec

Notify = Callable[[str], None]


def check_draft_model(asked: Speculating) -> None:
    """Refuse a name that nobody knows, before anything is fetched.

    Raises:
        CheckpointError: ``model-not-found``, or a folder that cannot be run.
    """
    from llmrun.hub.names import locate

    if asked.model:
        with _telling(asked.model):
            locate(asked.model)


def draft_model(
    asked: Speculating,
    spec: ModelSpec,
    notify: Notify,
    *,
    ram_bytes: int | None = None,
    trust_remote_code: bool = False,
) -> ModelSpec | None:
    """The model that is to draft for ``spec``, fetched where it is not here; ``None`` where no model does.

    Raises:
        UsageError: ``draft-tokenizer``.
        LlmrunError: it is not there or cannot run; a row says that it is that of ``--speculate``.
    """
    from llmrun.hub import resolve

    if asked.model is None:
        return None
    with _telling(asked.model):
        local = resolve(asked.model, notify=notify)
        found = runnable_spec(local, notify, ram_bytes=ram_bytes, trust_remote_code=trust_remote_code)
    _check_tokens(spec, found, trust_remote_code=trust_remote_code)
    return found


def described_draft_model(
    asked: Speculating, spec: ModelSpec, notify: Notify, *, trust_remote_code: bool = False
) -> ModelSpec | None:
    """As ``draft_model``, fetching nothing: tokens are compared where both models are here.

    Raises:
        UsageError: ``draft-tokenizer``.
        LlmrunError: it is not to be had, broken, or of a kind that cannot run.
    """
    from llmrun.hub import find_spec

    if asked.model is None:
        return None
    with _telling(asked.model):
        found = find_spec(asked.model, notify=notify, trust_remote_code=trust_remote_code)
    if spec.is_local and found.is_local:
        _check_tokens(spec, found, trust_remote_code=trust_remote_code)
    return found


def with_draft_model(machine: Machine, model: ModelSpec | None, notify: Notify) -> Machine:
    """With the speed of its layers, measured now if it was not."""
    from llmrun.hardware.speeds_cache import with_layers
    from llmrun.planner.draft_model import draft_precision

    if model is None or not model.is_local or not machine.is_this_host:
        return machine
    own = own_layer(model, None, fine=draft_precision(model).quality.fine)
    folder, whose = Path(model.folder), f"the layers of {model.name}"
    return replace(machine, speeds=with_layers(machine.speeds, machine.profile, folder, notify, own, whose=whose))


def _check_tokens(spec: ModelSpec, found: ModelSpec, *, trust_remote_code: bool) -> None:
    from llmrun.engine.vocabulary import check_same_tokens, read_vocabulary

    its, theirs = (read_vocabulary(Path(one.folder), trust_remote_code=trust_remote_code) for one in (spec, found))
    check_same_tokens(spec.name, its, found.name, theirs)


@contextmanager
def _telling(name: str) -> Iterator[None]:
    """Add to an error which of the two models it is about."""
    try:
        yield
    except LlmrunError as error:
        error.rows += (Row("it is from", f"--speculate {name}", "none of auto, off, self, ngram, so a model"),)
        raise
