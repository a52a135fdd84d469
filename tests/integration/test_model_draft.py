"""Drafts by another model with a cache of its own: the tokens of a run without, whatever it says."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
import torch
from placing import letters_for, opened, plan_of
from test_speculation import COUNT, PROMPT, WORKLOAD, Always, sampler
from tiny_model import FAMILIES, VOCAB_SIZE, save

from llmrun.checkpoint import ModelSpec, read_spec
from llmrun.engine.loaded import LoadedModel, load_model
from llmrun.engine.speculation.draft import Draft
from llmrun.engine.speculation.model_draft import ModelDrafter
from llmrun.engine.speculation.passes import Speculation, plain_tokens
from llmrun.events import Speculated
from llmrun.planner.draft_model import draft_model_plan
from llmrun.runtime.host import HostWeights
from llmrun.settings import Workload


def saved(family: str, folder: Path, seed: int = 7, **changes: object) -> ModelSpec:
    """A tiny model; another seed makes it another model of the same shape."""
    model = FAMILIES[family].build(**changes)
    if seed != 7:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    folder.mkdir()
    return read_spec(save(model, folder))


@contextmanager
def loaded(spec: ModelSpec, workload: Workload = WORKLOAD) -> Iterator[LoadedModel]:
    """The model that drafts, as an engine has it."""
    plan = draft_model_plan(spec, workload)
    host = HostWeights(spec, plan)
    host.start()
    model = load_model(spec, plan, host, {}, lambda event: None, threading.Event())
    try:
        yield model
    finally:
        model.residency.close()
        host.close()


class Watched:
    """Also keeps what it was asked for and what it said."""

    def __init__(self, drafter: ModelDrafter) -> None:
        self._drafter = drafter
        self.drafts: list[Draft] = []

    def draft(self, tokens: Sequence[int], count: int, most_doubt: float = math.inf) -> Draft:
        self.drafts.append(self._drafter.draft(tokens, count))  # however sure it is
        return self.drafts[-1]


@pytest.mark.parametrize("letters", ["RRRRRRRRR", "dRRdRdRdR"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_the_tokens_are_those_of_a_run_without_drafts(tmp_path: Path, family: str, letters: str) -> None:
    """By a perfect drafter, the same model; a bad one; and one with another number of logits."""
    spec = saved(family, tmp_path / "large")
    bad = saved("qwen2", tmp_path / "bad", seed=3)
    few = saved("llama", tmp_path / "few", vocab_size=VOCAB_SIZE - 1)
    many = saved("llama", tmp_path / "many", seed=5, vocab_size=VOCAB_SIZE + 29)
    with opened(spec, plan_of(spec, letters_for(spec, letters), WORKLOAD)) as (forward, cache, _):
        for seed in (None, 3):
            logits = forward.prefill(PROMPT[cache.reuse(PROMPT) :])
            expected = list(islice(plain_tokens(forward, cache, logits, sampler(seed)), COUNT))
            for small in (spec, bad, few, many):
                with loaded(small) as model:
                    chooser, told = sampler(seed), list[Speculated]()
                    drafter = Watched(ModelDrafter(model, spec.vocab_size, chooser))
                    logits = forward.prefill(PROMPT[cache.reuse(PROMPT) :])
                    tokens = Speculation(forward, cache, Always(7), told.append).tokens(logits, chooser, drafter, COUNT)
                    assert list(islice(tokens, COUNT)) == expected
                    assert sum(1 + one.accepted for one in told) == COUNT - 1
                    assert any(draft.tokens for draft in drafter.drafts)
                    if small is spec:
                        assert all(one.accepted == one.drafted for one in told)
                        assert len(told) == -(-(COUNT - 1) // 8)
