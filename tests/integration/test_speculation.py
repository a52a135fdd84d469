"""Speculation on tiny models: the tokens of a run without it, on every placement, whatever is drafted."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from placing import letters_for, opened, plan_of
from tiny_model import FAMILIES, VOCAB_SIZE, save, some_tokens

from llmrun.checkpoint import read_spec
from llmrun.engine.engine import Engine
from llmrun.engine.request import Chooser
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.chain import draft_chain
from llmrun.engine.speculation.draft import Draft, Drafter
from llmrun.engine.speculation.ngram import NgramDrafter
from llmrun.engine.speculation.passes import Speculation, plain_tokens
from llmrun.engine.speculation.shape import Shape
from llmrun.engine.start import start_engine
from llmrun.events import Accepted, Event, Finished, FinishReason, Speculated, Token
from llmrun.settings import NGRAM, OFF, SamplingSettings, Speculating, Workload

PROMPT = [*some_tokens(9), *some_tokens(9), *some_tokens(4)]
WORKLOAD = Workload(context_tokens=80, prefill_chunk_tokens=16)
COUNT = 32


class Always(Shape):
    """Drafts as much as it may, whatever it costs."""

    def length(self) -> int:
        return self._most


class Oracle:
    """Knows the answer and is wrong now and then."""

    def __init__(self, answer: Sequence[int], right: float) -> None:
        self._answer = [*PROMPT, *answer]
        self._right = right
        self._random = random.Random(4)

    def draft(self, tokens: Sequence[int], count: int, most_doubt: float = math.inf) -> Draft:
        guesses = self._answer[len(tokens) : len(tokens) + count]
        wrong = [self._random.random() > self._right for _ in guesses]
        return Draft(tuple((guess + one) % VOCAB_SIZE for guess, one in zip(guesses, wrong, strict=True)))


def sampler(seed: int | None = None) -> Sampler:
    settings = SamplingSettings(temperature=0.0 if seed is None else 1.0, repetition_penalty=1.1, seed=seed)
    return Sampler(settings, {}, PROMPT)


@pytest.mark.parametrize("letters", ["RRRRRRRRR", "dRRdRdRdR", "d00ppqq10", "1R1x0x0R1"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "gpt2"])
def test_the_tokens_are_those_of_a_run_without_drafts(tmp_path: Path, family: str, letters: str) -> None:
    spec = read_spec(save(FAMILIES[family].build(), tmp_path))
    plan = plan_of(spec, letters_for(spec, letters), WORKLOAD)
    with opened(spec, plan) as (forward, cache, _):

        def tokens(chooser: Chooser, drafter: Drafter | None, told: list[Speculated]) -> list[int]:
            logits = forward.prefill(PROMPT[cache.reuse(PROMPT) :])
            if drafter is None:
                return list(islice(plain_tokens(forward, cache, logits, chooser), COUNT))
            speculation = Speculation(forward, cache, Always(7), told.append)
            return list(islice(speculation.tokens(logits, chooser, drafter, COUNT), COUNT))

        for seed in (None, 3):
            expected = tokens(sampler(seed), None, [])
            for drafter in (NgramDrafter(), Oracle(expected, 0.8), Oracle(expected, 0.0), Oracle(expected, 1.0)):
                told: list[Speculated] = []
                assert tokens(sampler(seed), drafter, told) == expected
                assert sum(1 + one.accepted for one in told) == COUNT - 1
        assert len(told) == -(-(COUNT - 1) // 8)  # all was right: eight from each pass


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_draft_on_the_same_cache_leaves_it_as_it_was(tmp_path: Path, family: str) -> None:
    """The model drafts for itself: all of it is right, wherever windows move."""
    spec = read_spec(save(FAMILIES[family].build(), tmp_path))
    with opened(spec, plan_of(spec, "dRRdRdRdR", WORKLOAD)) as (forward, cache, _):

        class Itself:
            def draft(self, tokens: Sequence[int], count: int, most_doubt: float = math.inf) -> Draft:
                with cache.drafting():
                    return draft_chain(forward.decode, tokens, count, chooser)

        chooser = sampler(5)
        expected = list(islice(plain_tokens(forward, cache, forward.prefill(PROMPT), chooser), COUNT))
        chooser, told = sampler(5), list[Speculated]()
        logits = forward.prefill(PROMPT[cache.reuse(PROMPT) :])
        tokens = Speculation(forward, cache, Always(7), told.append).tokens(logits, chooser, Itself(), COUNT)
        assert list(islice(tokens, COUNT)) == expected
        assert all(one.accepted == one.drafted for one in told)


@pytest.fixture
def engines(folder: Path) -> Iterator[tuple[Engine, Engine]]:
    """Without and with drafts."""
    spec = read_spec(folder)
    plan = plan_of(spec, letters_for(spec, "dRRdRdRdR"), WORKLOAD)
    with (
        start_engine(spec, plan, speculating=Speculating(OFF)) as plain,
        start_engine(spec, plan, speculating=Speculating(NGRAM, 5)) as engine,
    ):
        yield plain, engine


def answer(engine: Engine, prompt: list[int], **settings: object) -> list[Event]:
    sampling = SamplingSettings(**{"temperature": 0.0, "max_tokens": 40, **settings})  # type: ignore[arg-type]
    return list(engine.generate(prompt, sampling, engine.tokenizer.stream(sampling.stop)))


def said(events: list[Event]) -> tuple[list[int], str, FinishReason]:
    tokens = [event.token_id for event in events if isinstance(event, Token)]
    last = events[-1]
    assert isinstance(last, Finished)
    return tokens, "".join(e.text for e in events if isinstance(e, Token | Finished)), last.reason


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.0, "seed": 8}, {"repetition_penalty": 1.3}, {"max_tokens": 3}]
)
def test_an_answer_is_the_same(engines: tuple[Engine, Engine], settings: dict[str, object]) -> None:
    plain, engine = (answer(each, PROMPT, **settings) for each in engines)
    assert said(plain) == said(engine)
    assert not any(isinstance(event, Speculated) for event in plain)
    passes = [event for event in engine if isinstance(event, Speculated)]
    assert sum(1 + one.accepted for one in passes) == len(said(engine)[0]) - 1


def test_what_ends_an_answer_within_a_pass_ends_it(engines: tuple[Engine, Engine]) -> None:
    """And the next one finds in the cache what belongs to it, no more."""
    words, text, _ = said(answer(engines[0], PROMPT))
    stops = [text[at : at + 3] for at in range(0, len(text) - 3, 5)]
    for stop in stops:
        plain, engine = (answer(each, PROMPT, stop=(stop,)) for each in engines)
        assert said(plain) == said(engine)
        assert engines[0]._cache.tokens == engines[1]._cache.tokens
    longer = [*PROMPT, *words[:20], 7]
    plain, engine = (answer(each, longer) for each in engines)
    assert said(plain) == said(engine)
    assert [e.reused_tokens for e in plain if isinstance(e, Accepted)] == [
        e.reused_tokens for e in engine if isinstance(e, Accepted)
    ]


def test_an_end_token_within_a_pass_ends_it(engines: tuple[Engine, Engine]) -> None:
    words = said(answer(engines[0], PROMPT))[0]
    for end in words[5:30:4]:
        for each in engines:
            each.tokenizer.end_token_ids = frozenset([end])
        plain, engine = (answer(each, PROMPT) for each in engines)
        assert said(plain) == said(engine)
        assert engines[0]._cache.tokens == engines[1]._cache.tokens


def test_a_full_context_ends_it(engines: tuple[Engine, Engine]) -> None:
    plain, engine = (answer(each, PROMPT, max_tokens=None) for each in engines)
    assert said(plain) == said(engine)
    assert said(engine)[2] is FinishReason.CONTEXT


def test_a_benchmark_takes_the_models_own_tokens(engines: tuple[Engine, Engine]) -> None:
    events = list(engines[1].extend(PROMPT, 30))
    assert said(events)[0] == said(answer(engines[0], PROMPT, max_tokens=30, ignore_eos=True))[0]
    assert any(isinstance(event, Speculated) for event in events)
    assert not any(isinstance(event, Speculated) for event in engines[1].replay(PROMPT, [1, 2, 3]))


def test_verified_logits_are_those_of_one_token_after_another(folder: Path) -> None:
    spec = read_spec(folder)
    tokens = some_tokens(30)
    with opened(spec, plan_of(spec, letters_for(spec, "dRRdRdRdR"), WORKLOAD)) as (forward, cache, _):
        forward.prefill(tokens[:10])
        rows = torch.stack([forward.decode(token) for token in tokens[10:20]])
        cache.rewind(10)
        together = forward.verify(tokens[10:20])
        assert together.shape == rows.shape
        torch.testing.assert_close(together, rows, rtol=1e-4, atol=1e-5)
        assert cache.tokens == tokens[:20]
