"""A small OpenAI-compatible server on loopback that streams, and fails in every way that servers do.

What a request gets is decided by its place: ``StreamingServer([OK, stall, OK])`` answers the first and the third.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "tiny-llama"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def chat_chunk(text: str | None = None, finish: str | None = None, role: str | None = None) -> dict:
    delta = {name: value for name, value in (("role", role), ("content", text)) if value is not None}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [{"delta": delta, "finish_reason": finish}]}


def text_chunk(text: str = "", finish: str | None = None) -> dict:
    return {"id": "c", "object": "text_completion", "choices": [{"text": text, "finish_reason": finish}]}


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
CHAT = (event(chat_chunk("", role="assistant")), *(event(chat_chunk(word)) for word in ("Die ", "Fü", "ße 🙂")))
END = (event(chat_chunk(finish="length")), event({"choices": [], "usage": USAGE}), DONE)


@dataclass
class Exchange:
    """One request as it came, and the means to answer it."""

    handler: BaseHTTPRequestHandler
    body: dict
    closing: threading.Event

    def start(self, status: int = 200, content_type: str = "text/event-stream", **headers: str) -> None:
        self.handler.send_response(status)
        self.handler.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()

    def write(self, part: bytes) -> None:
        """One chunk of the transfer coding."""
        self.handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.handler.wfile.flush()

    def stream(self, parts: Sequence[bytes], *, end: bool = True) -> None:
        self.start(Transfer_Encoding="chunked")
        for part in parts:
            self.write(part)
        if end:
            self.write(b"")

    def page(self, status: int, text: str, content_type: str = "application/json", **headers: str) -> None:
        data = text.encode()
        self.start(status, content_type, Content_Length=str(len(data)), **headers)
        self.handler.wfile.write(data)

    def wait(self) -> None:
        """Say nothing until the server is closed."""
        self.closing.wait(60)

    def drop(self) -> None:
        """Close the connection as a crash does."""
        self.handler.close_connection = True
        self.handler.connection.shutdown(socket.SHUT_RDWR)


Reply = Callable[[Exchange], None]


def ok(exchange: Exchange) -> None:
    exchange.stream([*CHAT, *END])


def text_ok(exchange: Exchange) -> None:
    exchange.stream([event(text_chunk(word)) for word in "abc"] + [event(text_chunk(finish="length")), *END[1:]])


def in_crumbs(exchange: Exchange) -> None:
    """Three bytes at a time, CRLF, a comment as some send for a ping, and data over two lines."""
    text = b"".join(CHAT + END).replace(b'"choices"', b'\ndata: "choices"', 1).replace(b"\n", b"\r\n")
    text = b": ping\r\n\r\n" + text
    exchange.stream([text[at : at + 3] for at in range(0, len(text), 3)])


def without_usage(exchange: Exchange) -> None:
    exchange.stream([*CHAT, END[0], DONE])


def without_done(exchange: Exchange) -> None:
    exchange.stream([*CHAT, *END[:2]])


def ends_early(exchange: Exchange) -> None:
    exchange.stream(CHAT)


def stalls(exchange: Exchange) -> None:
    exchange.stream(CHAT[:2], end=False)
    exchange.wait()


def never_answers(exchange: Exchange) -> None:
    exchange.wait()


def drops(exchange: Exchange) -> None:
    exchange.stream(CHAT[:2], end=False)
    exchange.drop()


def drops_at_once(exchange: Exchange) -> None:
    exchange.drop()


def broken_json(exchange: Exchange) -> None:
    exchange.stream([CHAT[0], b'data: {"choices": [\n\n', *END])


def wrong_shape(exchange: Exchange) -> None:
    exchange.stream([event({"choices": [{"delta": {"content": 5}}]}), *END])


def error_in_stream(exchange: Exchange) -> None:
    exchange.stream([*CHAT, event({"error": {"message": "out of\x1b[31m memory", "code": 500}})])


def no_text(exchange: Exchange) -> None:
    exchange.stream([event(chat_chunk(finish="stop")), DONE])


def not_a_stream(exchange: Exchange) -> None:
    exchange.page(200, json.dumps(chat_chunk("all at once")))


def too_many(exchange: Exchange) -> None:
    exchange.page(429, json.dumps({"error": {"message": "slow down"}}), Retry_After="2")


def fails(exchange: Exchange) -> None:
    exchange.page(500, "<html>Internal\r\nServer Error</html>", "text/html")


@dataclass
class StreamingServer:
    """Replies to the posts one after the other, in the order in which they come, and then always the last."""

    replies: list[Reply]
    models: Reply = lambda exchange: exchange.page(200, json.dumps({"data": [{"id": MODEL}, {"id": "other"}]}))
    bodies: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    port: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[StreamingServer]:
        server = _Server(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.port = server.server_address[1]
        try:
            yield self
        finally:
            self.closing.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def enter(self, path: str, headers: dict[str, str], body: dict) -> Reply:
        with self._lock:
            reply = self.replies[min(len(self.bodies), len(self.replies) - 1)]
            self.paths.append(path)
            self.headers.append(headers)
            self.bodies.append(body)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        return reply

    def leave(self) -> None:
        with self._lock:
            self.under_way -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in mid-stream is what is tested."""


def _handler(server: StreamingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            server.models(Exchange(self, {}, server.closing))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = server.enter(self.path, dict(self.headers), body)
            try:
                reply(Exchange(self, body, server.closing))
            finally:
                server.leave()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serving(*replies: Reply, **options: Reply) -> Iterator[StreamingServer]:
    with StreamingServer(list(replies) or [ok], **options).running() as server:
        yield server
