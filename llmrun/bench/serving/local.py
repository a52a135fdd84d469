"""llmrun itself as what is compared: its engine answers one request at a time, so that requests wait for each other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Protocol, cast

from llmrun.bench.serving.outcome import Answer, RequestFailed
from llmrun.bench.serving.workload import Request
from llmrun.engine.session import Message, TokenGenerator
from llmrun.engine.text_stream import TextStream
from llmrun.errors import LlmrunError
from llmrun.events import Accepted, Event, Finished, Token
from llmrun.settings import SamplingSettings

QUEUE_NOTE = "llmrun runs one sequence at a time: of requests that come together, TTFT is mostly the wait in its queue"


class Tokenizer(Protocol):
    """What is needed of ``ChatTokenizer``."""

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation, up to where the model is to answer."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """The tokens of a text."""
        ...

    def stream(self, stop: Sequence[str] = ()) -> TextStream:
        """A stream for the text of one answer."""
        ...


class LocalModel:
    """A running engine that answers as a server with a single slot does.

    Its one thread is the queue. Tokenisation is within the time of a request, as it is in a server.
    """

    def __init__(
        self, generator: TokenGenerator, tokenizer: Tokenizer, *, chat: bool = True, ignore_eos: bool = False
    ) -> None:
        self._generator = generator
        self._tokenizer = tokenizer
        self._chat = chat
        self._ignore_eos = ignore_eos
        self._slot = ThreadPoolExecutor(1, thread_name_prefix="slot")

    async def ask(self, request: Request) -> Answer:
        """Wait for the slot, then for the answer. Cancelled, the engine stops before its next layer.

        Raises:
            RequestFailed: what the engine raises; the prompt is longer than the context, say.
        """
        sent_s, stop = time.monotonic(), threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._slot, self._answer, request, sent_s, stop)
        except LlmrunError as error:
            raise RequestFailed(f"{error.reference}: {error.message}") from error
        finally:
            stop.set()

    def close(self) -> None:
        """Wait until the slot is free."""
        self._slot.shutdown()

    def _answer(self, request: Request, sent_s: float, stop: threading.Event) -> Answer:
        times_s: list[float] = []
        prompt_tokens, reused_tokens, end_s = 0, 0, sent_s
        with closing(self._events(request)) as events:
            for event in events:
                if stop.is_set():
                    raise RequestFailed("stopped")
                if isinstance(event, Accepted):
                    prompt_tokens, reused_tokens = event.prompt_tokens, event.reused_tokens
                elif isinstance(event, Token):
                    times_s.append(event.at_s)
                elif isinstance(event, Finished):
                    end_s = event.at_s
        if not times_s:
            raise RequestFailed("an answer without a token")
        return Answer(sent_s, tuple(times_s), end_s, prompt_tokens, len(times_s), "engine", reused_tokens)

    def _events(self, request: Request) -> Generator[Event, None, None]:
        chat = self._chat
        encode = self._tokenizer
        prompt = encode.encode_chat([Message("user", request.prompt)]) if chat else encode.encode_text(request.prompt)
        sampling = SamplingSettings(temperature=0, max_tokens=request.max_tokens, ignore_eos=self._ignore_eos)
        events = self._generator.generate(prompt, sampling, self._tokenizer.stream())
        return cast(Generator[Event, None, None], events)  # an engine's generator; closing it stops its readers


@contextmanager
def open_local(
    generator: TokenGenerator, tokenizer: Tokenizer, *, chat: bool, ignore_eos: bool
) -> Iterator[LocalModel]:
    """A ``LocalModel`` whose slot is free again at the end."""
    model = LocalModel(generator, tokenizer, chat=chat, ignore_eos=ignore_eos)
    try:
        yield model
    finally:
        model.close()
