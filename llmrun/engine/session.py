"""A conversation: its messages, and answers to them event by event.

A session knows text, the generator behind it knows tokens. Each question hands the generator the tokens of the whole
conversation; it is the generator that keeps the KV cache and re-uses the beginning that is the same as before.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, cast

from llmrun.engine.text_stream import TextStream
from llmrun.errors import DeviceError, UsageError
from llmrun.events import Event, Finished, FinishReason
from llmrun.settings import SamplingSettings

SCHEMA_VERSION = 1
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """What one side said; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


class TokenGenerator(Protocol):
    """What makes the tokens of an answer: the engine, or a stand-in for tests."""

    def generate(self, prompt: Sequence[int], sampling: SamplingSettings, stream: TextStream) -> Iterator[Event]:
        """The events of one answer to ``prompt``; the text of its tokens comes from ``stream``."""
        ...


class Tokenizer(Protocol):
    """What a session needs of ``ChatTokenizer``."""

    def encode_chat(
        self, messages: Sequence[Message], *, think: bool | None = None, generation_prompt: bool = True
    ) -> list[int]:
        """The tokens of a conversation."""
        ...

    def stream(self, stop: Sequence[str] = ()) -> TextStream:
        """A stream for the text of one answer."""
        ...


class Session:
    """A conversation with a model.

    Args:
        generator: makes the tokens of an answer.
        tokenizer: the model's.
        sampling: how tokens are chosen; may be set between answers.
        system: the system message, if any.
        think: whether a thinking model shall think; ``None`` leaves it to the model. May be set between answers.
    """

    def __init__(
        self,
        generator: TokenGenerator,
        tokenizer: Tokenizer,
        sampling: SamplingSettings,
        system: str | None = None,
        think: bool | None = None,
    ) -> None:
        self._generator = generator
        self._tokenizer = tokenizer
        self._system = system
        self._turns: tuple[Message, ...] = ()
        self.sampling = sampling
        self.think = think

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, the system message first."""
        return ((Message("system", self._system),) if self._system else ()) + self._turns

    @property
    def token_count(self) -> int:
        """How many tokens the conversation takes of the context."""
        if not self._turns:
            return 0
        return len(self._tokenizer.encode_chat(self.messages, think=self.think, generation_prompt=False))

    def ask(self, text: str) -> Generator[Event, None, None]:
        """The events of the answer to ``text``, which joins the conversation.

        However the answer ends (the model, an error, ``close`` of this generator), what came of it is kept. When
        nothing came the question is taken back, so that the conversation is as it was.

        Raises:
            UsageError: ``empty-prompt``, at the call; ``chat-template`` and what the generator raises, at the first
                event.
        """
        if not text.strip():
            raise UsageError("empty-prompt", "The prompt is empty", hint='`llmrun chat -p "a question"`')
        return self._answer((*self._turns, Message("user", text)))

    def regenerate(self) -> Generator[Event, None, None]:
        """The events of another answer to the last question; it takes the place of the one before.

        Raises:
            UsageError: ``nothing-to-regenerate``, no question has been asked.
        """
        turns = self._turns[:-1] if self._turns and self._turns[-1].role == "assistant" else self._turns
        if not turns or turns[-1].role != "user":
            raise UsageError("nothing-to-regenerate", "No question has been asked yet")
        return self._answer(turns)

    def clear(self) -> None:
        """Forgets the conversation; the system message stays."""
        self._turns = ()

    def set_system(self, text: str) -> None:
        """Sets the system message; an empty one takes it away."""
        self._system = text if text.strip() else None

    def restore(self, messages: Sequence[Message]) -> None:
        """Goes on with a saved conversation, its system message included."""
        self._system = next((message.content for message in messages if message.role == "system"), None)
        self._turns = tuple(message for message in messages if message.role != "system")

    def save(self, path: Path) -> None:
        """Writes the conversation as JSON, whole or not at all.

        Raises:
            DeviceError: ``session-not-saved``.
        """
        value = {"schema": SCHEMA_VERSION, "messages": [asdict(message) for message in self.messages]}
        partial = path.with_name(f"{path.name}.partial")
        try:
            partial.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise DeviceError("session-not-saved", f"{path} cannot be written: {error.strerror}") from error

    @staticmethod
    def load_messages(path: Path) -> tuple[Message, ...]:
        """The conversation that ``save`` wrote.

        Raises:
            UsageError: ``bad-session-file``: not there, not JSON, of another schema, or not a conversation.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError("bad-session-file", f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UsageError("bad-session-file", f"{path} is not a saved conversation: {error}") from error
        return _parse_messages(path, value)

    def _answer(self, turns: tuple[Message, ...]) -> Generator[Event, None, None]:
        before, self._turns = self._turns, turns
        stream = self._tokenizer.stream(self.sampling.stop)
        finished = False
        try:
            prompt = self._tokenizer.encode_chat(self.messages, think=self.think)
            # An engine's generator; closing it stops its readers before the answer is put down.
            events = cast(Generator[Event, None, None], self._generator.generate(prompt, self.sampling, stream))
            with closing(events):
                for event in events:
                    finished |= isinstance(event, Finished) and event.reason is not FinishReason.INTERRUPTED
                    yield event
        finally:
            # The generator may be some tokens ahead of the events that were read; they are in its KV cache already.
            stream.flush()
            self._turns = (*turns, Message("assistant", stream.text)) if stream.text or finished else before


def _parse_messages(path: Path, value: object) -> tuple[Message, ...]:
    if not isinstance(value, dict) or value.get("schema") != SCHEMA_VERSION:
        schema = value.get("schema") if isinstance(value, dict) else None
        raise UsageError("bad-session-file", f"{path} has schema {schema}; this version reads {SCHEMA_VERSION}")
    messages = value.get("messages")
    if not isinstance(messages, list):
        raise UsageError("bad-session-file", f"{path} has no list of messages")
    for index, message in enumerate(messages):
        if not _is_message(message):
            raise UsageError("bad-session-file", f"Message {index} of {path} has no role or no content that is text")
    return tuple(Message(message["role"], message["content"]) for message in messages)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and value.get("role") in _ROLES and isinstance(value.get("content"), str)
