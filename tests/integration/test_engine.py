"""The engine on a tiny model: events, faults, and what is left after them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from placing import letters_for, opened, plan_of
from tiny_model import FAMILIES, reference_logits, save, some_tokens

from llmrun.checkpoint import read_spec
from llmrun.engine.engine import Engine
from llmrun.engine.start import start_engine
from llmrun.errors import CheckpointError, DeviceError, Interrupted, UsageError
from llmrun.events import Accepted, Event, Finished, FinishReason, MemorySample, PrefillProgress, Token
from llmrun.planner.plan import Plan
from llmrun.settings import SamplingSettings, Workload

GREEDY = SamplingSettings(temperature=0, max_tokens=12)
PROMPT = [5, 60, 70, 80, 90, 100]


def plan(folder: Path, letters: str = "dRRdRdRdR", context_tokens: int = 64) -> Plan:
    spec = read_spec(folder)
    return plan_of(spec, letters_for(spec, letters), Workload(context_tokens=context_tokens, prefill_chunk_tokens=16))


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    with start_engine(read_spec(folder), plan(folder)) as engine:
        yield engine


def answer(engine: Engine, prompt: list[int], sampling: SamplingSettings = GREEDY) -> list[Event]:
    return list(engine.generate(prompt, sampling, engine.tokenizer.stream(sampling.stop)))


def tokens_of(events: list[Event]) -> list[int]:
    return [event.token_id for event in events if isinstance(event, Token)]


def expected_tokens(folder: Path, prompt: list[int], count: int = 12) -> list[int]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count)
    return out[0, len(prompt) :].tolist()


def test_greedy_tokens_are_those_of_transformers(folder: Path, engine: Engine) -> None:
    events = answer(engine, PROMPT)
    assert tokens_of(events) == expected_tokens(folder, PROMPT)
    assert isinstance(events[0], Accepted)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.LENGTH
    assert [e.done_units for e in events if isinstance(e, PrefillProgress)] == list(range(1, 8))
    sample = next(e for e in events if isinstance(e, MemorySample))
    assert 0 < sample.used_bytes <= sample.peak_bytes


def test_second_turn_reuses_the_cache(folder: Path, engine: Engine) -> None:
    first = tokens_of(answer(engine, PROMPT))
    longer = [*PROMPT, *first, 33, 44]
    events = answer(engine, longer)
    assert isinstance(events[0], Accepted)
    assert events[0].reused_tokens == len(PROMPT) + len(first) - 1  # the last token was never fed
    assert tokens_of(events) == expected_tokens(folder, longer)


def test_a_full_context_ends_the_answer(folder: Path) -> None:
    with start_engine(read_spec(folder), plan(folder, context_tokens=16)) as engine:
        events = answer(engine, PROMPT, SamplingSettings(temperature=0))
        assert isinstance(events[-1], Finished)
        assert events[-1].reason is FinishReason.CONTEXT
        assert len(PROMPT) + len(tokens_of(events)) == 16


def test_prompt_longer_than_the_context(engine: Engine) -> None:
    with pytest.raises(UsageError, match="64") as caught:
        answer(engine, list(range(100)))
    assert caught.value.reference == "prompt-too-long"
    assert caught.value.hint
    assert "--context 256" in caught.value.hint


def test_end_token_ends_the_answer(folder: Path) -> None:
    tokens = expected_tokens(folder, PROMPT)
    config = transformers.GenerationConfig.from_pretrained(folder)
    config.eos_token_id = [tokens[2]]
    config.save_pretrained(folder)
    with start_engine(read_spec(folder), plan(folder)) as engine:
        events = answer(engine, PROMPT)
    assert tokens_of(events) == tokens[: tokens.index(tokens[2])]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.STOP


def test_closing_the_stream_stops_the_work_and_keeps_the_engine(folder: Path, engine: Engine) -> None:
    stream = engine.generate(PROMPT, SamplingSettings(temperature=0), engine.tokenizer.stream())
    for event in stream:
        if isinstance(event, Token):
            break
    stream.close()
    other = [7, 8, 9, 200, 201]
    assert tokens_of(answer(engine, other)) == expected_tokens(folder, other)


class CancelledAfter(threading.Event):
    """Is set by being asked: after ``count`` times, so that a pass breaks off at that very point."""

    count = 10**9

    def is_set(self) -> bool:
        self.count -= 1
        return self.count < 0


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_long_prompt_that_is_broken_off_anywhere_leaves_the_cache_as_it_was(tmp_path: Path, family: str) -> None:
    model = FAMILIES[family].build()
    spec = read_spec(save(model, tmp_path))
    tokens, cancel = some_tokens(60), CancelledAfter()
    expected = reference_logits(model, tokens)[-1]
    with opened(spec, plan_of(spec, "dRRdRdRdR"), cancel=cancel) as (forward, cache, _):
        for count in range(3, 24, 4):  # it is asked at least 25 times: for 6 layers, their 3 chunks each, and the head
            cancel.count = 10**9
            cache.reuse([])
            forward.prefill(tokens[:20])
            cancel.count = count
            with pytest.raises(Interrupted):
                forward.prefill(tokens[20:])
            cancel.count = 10**9
            kept = cache.reuse(tokens)
            torch.testing.assert_close(forward.prefill(tokens[kept:]), expected, rtol=1e-4, atol=1e-5)


def test_no_thread_is_left(folder: Path) -> None:
    before = set(threading.enumerate())
    with start_engine(read_spec(folder), plan(folder)) as engine:
        stream = engine.generate(PROMPT, GREEDY, engine.tokenizer.stream())
        next(stream)
        stream.close()
    assert {thread for thread in threading.enumerate() if thread not in before} == set()


def test_a_failing_read_names_file_and_offset_and_can_be_tried_again(folder: Path, engine: Engine) -> None:
    shard = folder / "model.safetensors"
    whole = shard.read_bytes()
    stream = engine.generate(PROMPT, SamplingSettings(temperature=0, max_tokens=50), engine.tokenizer.stream())
    seen: list[int] = []
    with pytest.raises(DeviceError, match="offset") as caught:
        seen.extend(event.token_id for event in cut_off(stream, shard) if isinstance(event, Token))
    assert caught.value.reference == "read-failed"
    assert str(shard) in caught.value.message
    assert seen == expected_after(seen, whole, shard)
    assert tokens_of(answer(engine, PROMPT)) == expected_tokens(folder, PROMPT)


def cut_off(stream: Iterator[Event], shard: Path) -> Iterator[Event]:
    """The events of ``stream``, the file cut short after the first token."""
    for event in stream:
        if isinstance(event, Token):
            os.truncate(shard, 4096)
        yield event


def expected_after(seen: list[int], whole: bytes, shard: Path) -> list[int]:
    """Puts the file back in place (the engine has it open) and says what should have come until then."""
    with shard.open("r+b") as file:
        file.write(whole)
    return expected_tokens(shard.parent, PROMPT, count=len(seen))


def test_unknown_architecture_is_refused(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"llamazoid"'))
    with pytest.raises(CheckpointError, match="llamazoid") as caught, start_engine(read_spec(folder), plan(folder)):
        pass
    assert caught.value.reference == "unsupported-architecture"


FOLLOWING = [7, 319, 9, 200]  # 319 would end an answer


def replayed(engine: Engine, prompt: list[int], following: list[int]) -> list[Event]:
    return list(engine.replay(prompt, following))


def test_a_replay_takes_the_tokens_that_it_is_given(engine: Engine) -> None:
    events = replayed(engine, PROMPT, FOLLOWING)
    assert tokens_of(events) == FOLLOWING
    assert {event.text for event in events if isinstance(event, Token)} == {""}
    assert events[-1] == Finished(events[-1].at_s, FinishReason.LENGTH)
    assert engine._cache.tokens == [*PROMPT, *FOLLOWING[:-1]]
    (accepted,) = (event for event in replayed(engine, [*PROMPT, *FOLLOWING], [1]) if isinstance(event, Accepted))
    assert accepted.reused_tokens == len(PROMPT) + len(FOLLOWING) - 1


def test_a_replay_may_fill_the_context_to_its_last_token(folder: Path) -> None:
    with start_engine(read_spec(folder), plan(folder, context_tokens=16)) as engine:
        assert len(tokens_of(replayed(engine, list(range(16)), [1]))) == 1
        assert len(tokens_of(replayed(engine, [5], list(range(16))))) == 16
        with pytest.raises(UsageError, match="16"):
            replayed(engine, [5], list(range(17)))


def test_what_was_computed_for_a_replay_serves_the_next_answer(folder: Path, engine: Engine) -> None:
    replayed(engine, PROMPT[:3], PROMPT[3:])
    assert tokens_of(answer(engine, PROMPT)) == expected_tokens(folder, PROMPT)
