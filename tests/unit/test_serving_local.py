"""llmrun as what is compared: one slot, whose queue the requests wait in."""

import asyncio
import threading
import time
from itertools import pairwise

import pytest
from fake_engine import FakeEngine, LetterTokenizer

from llmrun.bench.serving.load import Load, attempt, drive
from llmrun.bench.serving.local import open_local
from llmrun.bench.serving.outcome import Answer, Failure
from llmrun.bench.serving.workload import Request
from llmrun.errors import DeviceError
from llmrun.events import Accepted, Finished, FinishReason, LayerDone, Token

REQUEST = Request("river", 5)


class Tokenizer(LetterTokenizer):
    def encode_text(self, text):
        return [ord(c) for c in text]


class Engine:
    """Answers with two letters one thing at a time; the first ``endless`` of its answers never come."""

    def __init__(self, endless=0):
        self.endless = endless
        self.begun = threading.Event()
        self.busy = threading.Lock()

    def generate(self, prompt, sampling, stream):
        assert self.busy.acquire(blocking=False), "two at once"
        self.begun.set()
        try:
            yield Accepted(time.monotonic(), len(prompt), 0)
            if self.endless:
                self.endless -= 1
                while True:
                    yield LayerDone(time.monotonic(), "layer 0", "cpu")
            for letter in b"ab":
                yield Token(time.monotonic(), letter, stream.push(letter))
            yield Finished(time.monotonic(), FinishReason.LENGTH)
        finally:
            self.busy.release()


def ask(engine, *, chat=True, ignore_eos=False, timeout_s=30.0):
    with open_local(engine, Tokenizer(), chat=chat, ignore_eos=ignore_eos) as model:
        return asyncio.run(attempt(model.ask, REQUEST, timeout_s))


def test_an_answer_by_the_events_of_the_engine():
    answer = ask(Engine())
    assert isinstance(answer, Answer)
    assert (answer.prompt_tokens, answer.output_tokens, answer.counted_by) == (len("user:river;"), 2, "engine")
    assert answer.sent_s <= answer.token_times_s[0] <= answer.token_times_s[1] <= answer.end_s


@pytest.mark.parametrize(("chat", "prompt"), [(True, "user:river;"), (False, "river")])
def test_a_chat_has_the_template_and_a_completion_has_none(chat, prompt):
    engine = FakeEngine(["x"])
    ask(engine, chat=chat, ignore_eos=True)
    (sampling,) = engine.samplings
    assert engine.prompts == [prompt]
    assert (sampling.temperature, sampling.max_tokens, sampling.ignore_eos) == (0, 5, True)


def test_what_the_engine_raises_is_why_a_request_failed():
    failure = ask(FakeEngine([["a", DeviceError("read-failed", "a.safetensors: cannot read")]]))
    assert failure.reason == "read-failed: a.safetensors: cannot read"


def test_an_answer_without_a_token_failed():
    assert ask(FakeEngine([""])).reason == "an answer without a token"


def test_requests_that_come_together_are_answered_one_by_one():
    with open_local(Engine(), Tokenizer(), chat=True, ignore_eos=False) as model:
        done = asyncio.run(drive(model.ask, [REQUEST] * 6, Load(), lambda: None))
    assert all(isinstance(outcome, Answer) for outcome in done.outcomes)
    ends = [(answer.token_times_s[0], answer.end_s) for answer in done.outcomes]
    assert all(end <= first for (_, end), (first, _) in pairwise(ends))


def test_a_request_that_takes_too_long_frees_the_slot_for_the_next():
    engine = Engine(endless=1)
    with open_local(engine, Tokenizer(), chat=True, ignore_eos=False) as model:

        async def run():
            return [await attempt(model.ask, REQUEST, 0.1), await attempt(model.ask, REQUEST, 30.0)]

        late, answer = asyncio.run(run())
    assert isinstance(late, Failure)
    assert isinstance(answer, Answer)


def test_cancelled_the_engine_stops():
    engine = Engine(endless=2)
    with open_local(engine, Tokenizer(), chat=True, ignore_eos=False) as model:

        async def run():
            task = asyncio.create_task(drive(model.ask, [REQUEST] * 2, Load(), lambda: None))
            await asyncio.to_thread(engine.begun.wait)
            task.cancel()
            return await task

        done = asyncio.run(run())
    assert (done.outcomes, done.interrupted) == ((), True)
    assert not engine.busy.locked()
