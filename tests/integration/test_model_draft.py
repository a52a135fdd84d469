"""Drafts by another model with a cache of its own: the tokens of a run without, whatever it says."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from placing import letters_for, opened, plan_of
from test_speculation import COUNT, PROMPT, WORKLOAD, Always, answer, said, sampler
from tiny_model import FAMILIES, VOCAB_SIZE, save, some_tokens

from llmrun.checkpoint import ModelSpec, read_spec
from llmrun.engine.forward import Forward
from llmrun.engine.loaded import LoadedModel, load_model
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.draft import NOTHING, Draft
from llmrun.engine.speculation.model_draft import ModelDrafter
from llmrun.engine.speculation.passes import Speculation, plain_tokens
from llmrun.engine.start import start_engine
from llmrun.errors import Interrupted
from llmrun.events import LayerDone, Speculated
from llmrun.planner.draft_model import draft_model_plan
from llmrun.planner.plan import Drafting, Prediction
from llmrun.runtime.host import HostWeights
from llmrun.settings import OFF, SamplingSettings, Speculating, Workload


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
def loaded(
    spec: ModelSpec, workload: Workload = WORKLOAD, cancel: threading.Event | None = None
) -> Iterator[LoadedModel]:
    """The model that drafts, as an engine has it."""
    plan = draft_model_plan(spec, workload)
    host = HostWeights(spec, plan)
    host.start()
    model = load_model(spec, plan, host, {}, lambda event: None, cancel or threading.Event())
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


@pytest.mark.parametrize(
    ("family", "letters"), [("llama", "dRRdRdRdR"), ("mistral", "RRRRRRRRR"), ("gemma3", "RRRRRRRRR")]
)
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


class Counting(Forward):
    """Also keeps how many tokens each pass was over."""

    def __init__(self, model: LoadedModel) -> None:
        self.__dict__.update(model.forward.__dict__)
        self.passes: list[int] = []

    def prefill(self, tokens: Sequence[int]) -> torch.Tensor:
        self.passes.append(len(tokens))
        return super().prefill(tokens)

    def decode(self, token: int) -> torch.Tensor:
        self.passes.append(1)
        return super().decode(token)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_it_reads_what_it_has_not_read_yet(tmp_path: Path, family: str) -> None:
    """Also where windows of 8 tokens move, as in the second family they do again and again with chunks of 16."""
    spec = saved(family, tmp_path / "small")
    with loaded(spec, replace(WORKLOAD, context_tokens=200)) as model, torch.inference_mode():
        forward = Counting(model)
        drafter = ModelDrafter(replace(model, forward=forward), VOCAB_SIZE, sampler())
        tokens = some_tokens(50)
        for step in range(20):
            drafted = drafter.draft(tokens, 7).tokens
            assert len(drafted) == 7
            assert model.cache.tokens == [*tokens, *drafted[:-1]]
            if step % 5 == 4:
                with loaded(spec, replace(WORKLOAD, context_tokens=200)) as fresh:
                    assert ModelDrafter(fresh, VOCAB_SIZE, sampler()).draft(tokens, 7).tokens == drafted
            right = step % 8
            wrong = (drafted[right] + 1) % VOCAB_SIZE if right < 7 else 5
            tokens = [*tokens, *drafted[:right], wrong]
            expected = [50 if step == 0 else 2 if step % 8 == 0 else 1, *[1] * 6]
            assert forward.passes == expected  # after a draft that was all right its last token is missing too
            forward.passes.clear()


def test_none_where_its_context_ends_or_it_lacks_a_token(tmp_path: Path) -> None:
    spec = replace(saved("llama", tmp_path / "small"), context_tokens=24)
    with loaded(spec) as model, torch.inference_mode():
        drafter = ModelDrafter(model, VOCAB_SIZE + 9, sampler())
        tokens = some_tokens(20)
        assert [len(drafter.draft([*tokens, *[5] * more], 7).tokens) for more in (0, 3, 4, 5)] == [5, 2, 1, 0]
        assert drafter.draft([*tokens[:10], VOCAB_SIZE, 5], 7) == NOTHING
        assert len(drafter.draft(tokens[:12], 7).tokens) == 7


def test_it_can_be_stopped_and_goes_on(tmp_path: Path) -> None:
    cancel = threading.Event()
    spec, tokens = saved("llama", tmp_path / "small"), some_tokens(20)
    with loaded(spec, cancel=cancel) as model, torch.inference_mode():
        drafter = ModelDrafter(model, VOCAB_SIZE, sampler())
        expected = drafter.draft(tokens, 7)
        cancel.set()
        with pytest.raises(Interrupted):
            drafter.draft([*tokens, 5], 7)
        cancel.clear()
        assert drafter.draft(tokens, 7).tokens == expected.tokens


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 8}, {"repetition_penalty": 1.3}])
@pytest.mark.parametrize("good", [True, False])
def test_an_answer_is_the_same(folder: Path, tmp_path: Path, good: bool, settings: dict[str, object]) -> None:
    spec = read_spec(folder)
    other = spec if good else saved("qwen2", tmp_path / "small", seed=3, vocab_size=320)
    plan = plan_of(spec, letters_for(spec, "dRRdRdRdR"), WORKLOAD)
    found = []
    for how, draft_model in ((Speculating(OFF), None), (Speculating("small", 5), other)):
        with start_engine(spec, plan, speculating=how, draft_model=draft_model) as engine:
            events = [*answer(engine, PROMPT, **settings), *answer(engine, [*PROMPT, 5], **settings)]
            found.append(said(events))
            assert any(isinstance(event, Speculated) for event in events) == (draft_model is not None)
            layers = [event.unit for event in events if isinstance(event, LayerDone)]
            passes = sum(unit == "head" for unit in layers)
            assert layers.count("layer 0") == passes  # of the model that answers, and of no other
            right, tried = engine.guesses
            assert 0 <= right <= tried
            assert bool(tried) == any(isinstance(event, Speculated) and event.drafted for event in events)
    assert found[0] == found[1]


def test_reading_the_prompt_is_no_part_of_a_guess(tmp_path: Path) -> None:
    with loaded(saved("llama", tmp_path / "small")) as model, torch.inference_mode():
        drafter = ModelDrafter(model, VOCAB_SIZE, sampler())
        first = drafter.draft(PROMPT, 7)
        assert first.lead_s > 0
        assert first.guesses == 6
        second = drafter.draft([*PROMPT, *first.tokens[:3], 5], 7)
        assert (second.lead_s, second.guesses) == (0, 7)
        doubtful = drafter.draft([*PROMPT, *first.tokens[:3], 5, 6], 7, most_doubt=0.0)
        assert (doubtful.tokens, doubtful.guesses) == ((), 1)


@pytest.mark.parametrize(("prompt_token_s", "drafts"), [(0.0, True), (0.001, True), (5.0, False)])
def test_drafts_begin_with_the_first_pass_where_they_pay(folder: Path, prompt_token_s: float, drafts: bool) -> None:
    """As long as planned; a target that streams, and the very model drafts for it."""
    spec = read_spec(folder)
    plan = plan_of(spec, letters_for(spec, "dRRdRdRdR"), WORKLOAD)
    drafting = Drafting(5, 0.9, 0.5, 3.5, 0.0, alone_s=3.0, load_s=0.1, prompt_token_s=prompt_token_s)
    prediction = Prediction(1.0, 1.0, 1.0, 1.0, {}, (), {}, drafting)
    plan = replace(plan, prediction=prediction, speculating=Speculating("small", 5))
    found = []
    for how, other in ((Speculating(OFF), None), (Speculating("small", 5), spec)):
        with start_engine(spec, plan, speculating=how, draft_model=other) as engine:
            events = answer(engine, PROMPT, temperature=1.0, seed=8, max_tokens=31)
            found.append(said(events))
    assert found[0] == found[1]
    passes = [(event.drafted, event.accepted) for event in events if isinstance(event, Speculated)]
    assert passes == ([(5, 5)] * 5 if drafts else [(0, 0)] * 30)


def test_without_a_seed_it_says_what_its_guesses_were_drawn_from(tmp_path: Path) -> None:
    """For as many tokens as the other model has: none of a chance that it does not have itself."""
    for vocab_size in (VOCAB_SIZE - 9, VOCAB_SIZE + 9):
        chooser = Sampler(SamplingSettings(temperature=1.0), {}, PROMPT)
        with loaded(saved("llama", tmp_path / str(vocab_size), vocab_size=vocab_size)) as model:
            draft = ModelDrafter(model, VOCAB_SIZE, chooser).draft([token % 100 for token in PROMPT], 4)
        assert draft.probabilities is not None
        assert draft.probabilities.shape == (4, VOCAB_SIZE)
        torch.testing.assert_close(draft.probabilities.sum(-1), torch.ones(4))
        assert not draft.probabilities[:, vocab_size:].any()
