"""One chunk of a streamed answer of the OpenAI API, of ``/v1/completions`` or ``/v1/chat/completions``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from llmrun.bench.serving.outcome import RequestFailed

Count = Annotated[int, Field(ge=0)]


class Delta(BaseModel):
    """What a chat's chunk adds; servers call a thinking model's thoughts by one of two names."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(BaseModel):
    """``text`` of a completion, ``delta`` of a chat."""

    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None

    @property
    def has_text(self) -> bool:
        """Whether a token came: the first chunk of a chat names the role only, the last may say only why it ends."""
        delta = self.delta or Delta()
        return bool(self.text or delta.content or delta.reasoning_content or delta.reasoning)


class PromptTokens(BaseModel):
    """How many of the prompt's tokens were in the server's cache of prompts."""

    cached_tokens: Count | None = None


class Usage(BaseModel):
    """Tokens as the server counts them."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptTokens | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Of the prompt; ``None`` where the server does not say."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None


class Chunk(BaseModel):
    """The fields that are measured by; all others are left alone."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


def parse_chunk(data: str) -> Chunk:
    """The chunk in the data of one server-sent event.

    Raises:
        RequestFailed: it is not JSON, has another shape, or is the server's word that it failed.
    """
    try:
        chunk = Chunk.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise RequestFailed("broken chunk: not JSON") from None
        where = ".".join(map(str, first["loc"]))
        raise RequestFailed(f"broken chunk: {where or 'it'}: {first['msg']}") from None
    if chunk.error is not None:
        raise RequestFailed(f"error in the stream: {error_text(chunk.error)}")
    return chunk


def error_text(error: object) -> str:
    """What a server says of its error, in one short line that is safe in a terminal."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("error") or error
    return printable(str(error))


def printable(text: str, max_characters: int = 200) -> str:
    """``text`` in one line, without what would steer a terminal, and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * max_characters]).split())
    return line if len(line) <= max_characters else line[: max_characters - 1] + "…"
