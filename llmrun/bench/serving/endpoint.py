"""A model behind an OpenAI-compatible server: vLLM, Text Generation Inference, llama.cpp's server, ollama, ..."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import httpx2
from pydantic import BaseModel, Field, ValidationError

from llmrun.bench.serving.chunk import Usage, error_text, parse_chunk, printable
from llmrun.bench.serving.outcome import Answer, RequestFailed
from llmrun.bench.serving.workload import Request
from llmrun.errors import DeviceError, UsageError

CONNECT_TIMEOUT_S = 30.0
MODELS_TIMEOUT_S = 60.0
REFUSAL_BYTES = 4096
"""How much of an error's page is read."""

KEY_VARIABLES = ("LLMRUN_API_KEY", "OPENAI_API_KEY")
DIRECT: Mapping[str, None] = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}
"""No proxy of the environment stands before a server on this host."""


class Api(StrEnum):
    """Which of the two interfaces is asked; the value is the path below ``/v1``."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"


def api_key(env: Mapping[str, str] = os.environ) -> str | None:
    """The key of the environment, ours before OpenAI's.

    Raises:
        UsageError: ``bad-option``, it has characters that no HTTP header can carry.
    """
    for name in KEY_VARIABLES:
        if key := env.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise UsageError("bad-option", f"{name} has characters that cannot be part of a key")
            return key
    return None


@dataclass(frozen=True)
class Endpoint:
    """One model of a server.

    Args:
        client: its base URL ends with ``/v1/``, its headers have the key.
        model: the model's name there.
        key: is cut out of what the server says.
    """

    client: httpx2.AsyncClient
    model: str
    api: Api
    ignore_eos: bool = False
    key: str | None = field(default=None, repr=False)

    async def ask(self, request: Request) -> Answer:
        """Send a request and read its stream to the end.

        Raises:
            RequestFailed: no connection, another status than 200, a stream that breaks off or cannot be read.
        """
        sending = _Sending(time.monotonic())
        stage = "no connection"
        try:
            async with self.client.stream(
                "POST", self.api.value, json=self._body(request), extensions={"trace": sending.trace}
            ) as response:
                if response.status_code != 200:
                    raise RequestFailed(_without(self.key, await _refusal(response)))
                stage = "connection broke off in mid-stream"
                return await _read(response, sending.sent_s)
        except httpx2.SSEError as error:
            raise RequestFailed(f"no event stream: {printable(str(error))}") from error
        except (httpx2.RemoteProtocolError, httpx2.ReadError) as error:
            stage = "connection broke off before the answer" if stage == "no connection" else stage
            raise RequestFailed(stage) from error
        except (httpx2.RequestError, httpx2.StreamError) as error:
            raise RequestFailed(f"{stage}: {printable(str(error)) or type(error).__name__}") from error

    def _body(self, request: Request) -> dict[str, Any]:
        chat = self.api is Api.CHAT
        prompt = {"messages": [{"role": "user", "content": request.prompt}]} if chat else {"prompt": request.prompt}
        return {
            "model": self.model,
            **prompt,
            "max_tokens": request.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if self.ignore_eos else {}),
        }


@dataclass
class _Sending:
    """When a request goes out on its connection, by the trace of httpcore; until then, when it was handed over."""

    sent_s: float

    async def trace(self, name: str, info: object) -> None:
        """Told of each step."""
        if name == "http11.send_request_headers.started":
            self.sent_s = time.monotonic()


@asynccontextmanager
async def open_endpoint(
    url: str, model: str | None, api: Api, *, ignore_eos: bool = False, key: str | None = None
) -> AsyncIterator[Endpoint]:
    """The model of that name at the server, or the first that it lists.

    Each request has a connection of its own, whose making is not counted: a server may close one that is idle just when
    it is used again (llama.cpp's does after every stream), and what is lost by that is no figure of the model.

    Raises:
        DeviceError: ``endpoint-unreachable``; ``endpoint-no-model``, it lists none.
    """
    # Compressed, a stream would come in lumps of the compressor's making.
    headers = {"Accept-Encoding": "identity", "Connection": "close"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
    async with httpx2.AsyncClient(
        base_url=url,
        headers=headers,
        mounts=DIRECT,
        timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
    ) as client:
        yield Endpoint(client, model or await _first_model(client, key), api, ignore_eos, key)


async def _read(response: httpx2.Response, sent_s: float) -> Answer:
    reading = _Reading(sent_s)
    async for event in httpx2.EventSource(response):
        if event.data and not reading.done:
            reading.add(event.data, time.monotonic())
    return reading.answer()


class _Reading:
    """An answer in the making, event by event."""

    def __init__(self, sent_s: float) -> None:
        self._sent_s = sent_s
        self._times_s: list[float] = []
        self._end_s = sent_s
        self._usage = Usage()
        self._finished = False
        self.done = False

    def add(self, data: str, now_s: float) -> None:
        """The data of an event that came at ``now_s``."""
        if data.strip() == "[DONE]":
            self.done = True
            return
        chunk = parse_chunk(data)
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices or ():
            self._end_s = now_s
            self._finished |= choice.finish_reason is not None
            if choice.has_text:
                self._times_s.append(now_s)

    def answer(self) -> Answer:
        """The whole of it. Some servers send no ``[DONE]``, but each says with its last token why it ends.

        Raises:
            RequestFailed: the stream ended before the answer did, or there was nothing in it.
        """
        if not (self.done or self._finished):
            raise RequestFailed("the stream ended before the answer")
        counted = self._usage.completion_tokens
        if not self._times_s and not counted:
            raise RequestFailed("an answer without a token")
        times_s = tuple(self._times_s) or (self._end_s,)  # its tokens may be special ones, which have no text
        return Answer(
            self._sent_s,
            times_s,
            self._end_s,
            self._usage.prompt_tokens,
            counted or len(times_s),
            "usage" if counted else "chunks",
            self._usage.cached_tokens,
        )


async def _refusal(response: httpx2.Response) -> str:
    """Status, how long to wait and the server's own words, in a line."""
    status = f"HTTP {response.status_code} {printable(response.reason_phrase)}".rstrip()
    if wait := response.headers.get("Retry-After"):
        status += f" (Retry-After: {printable(wait)})"
    page = b""
    async for part in response.aiter_bytes():
        page += part
        if len(page) >= REFUSAL_BYTES:
            break
    return ": ".join(filter(None, (status, _words(page[:REFUSAL_BYTES].decode(errors="replace")))))


def _words(page: str) -> str:
    try:
        value = json.loads(page)
    except (ValueError, RecursionError):
        return printable(page)
    return error_text(value.get("error") or value) if isinstance(value, dict) else printable(page)


class _Model(BaseModel):
    id: Annotated[str, Field(min_length=1)]


class _Models(BaseModel):
    data: Annotated[list[_Model], Field(min_length=1)]


async def _first_model(client: httpx2.AsyncClient, key: str | None) -> str:
    shown = shown_url(str(client.base_url))
    try:
        async with client.stream("GET", "models", timeout=MODELS_TIMEOUT_S) as response:
            if response.status_code != 200:
                raise _no_model(shown, _without(key, await _refusal(response)), response.status_code)
            return _Models.model_validate_json(await response.aread()).data[0].id
    except httpx2.RequestError as error:
        raise DeviceError(
            "endpoint-unreachable",
            f"{shown} does not answer: {printable(str(error)) or type(error).__name__}",
            hint="check that the server runs there, and its port",
        ) from error
    except ValidationError:
        raise _no_model(shown, "its list of models is empty or none", 200) from None


def _no_model(shown: str, why: str, status: int) -> DeviceError:
    hint = "`--model NAME` names the model, then the server is not asked"
    if status in (401, 403):
        hint = f"set {' or '.join(KEY_VARIABLES)} to a key of that server"
    return DeviceError("endpoint-no-model", f"{shown}models does not say which models there are: {why}", hint=hint)


def shown_url(url: str) -> str:
    """``url`` without a password that may be in it."""
    return str(httpx2.URL(url).copy_with(username=None, password=None))


def _without(key: str | None, text: str) -> str:
    return text.replace(key, "***") if key else text
