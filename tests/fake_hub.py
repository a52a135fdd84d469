"""A model hub on this machine: just the answers that huggingface_hub needs to list and fetch a repository."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """``files`` of the one repository ``org/tiny``; ``refusal`` is the error code that every request gets."""

    def __init__(self, files: Mapping[str, bytes], refusal: tuple[int, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.refusal = files, refusal
        self.fetched: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running(files: Mapping[str, bytes], refusal: tuple[int, str] | None = None) -> Iterator[FakeHub]:
    with FakeHub(files, refusal) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        files = self.server.files
        if path == "/":
            return self._send(200, b"hub", with_body)
        if self.server.refusal:
            status, code = self.server.refusal
            return self._send(status, b"{}", with_body, {"X-Error-Code": code, "X-Error-Message": code})
        if re.fullmatch(r"/api/models/org/tiny(/revision/[^/]+)?", path):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            info = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings}
            return self._send(200, json.dumps(info).encode(), with_body)
        if path.startswith("/api/models/org/tiny/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self._send(200, json.dumps(tree).encode(), with_body)
        if (match := re.fullmatch(r"/org/tiny/resolve/[^/]+/(.+)", path)) and match[1] in files:
            data = files[match[1]]
            if with_body:
                self.server.fetched.append(match[1])
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            return self._send(200, data, with_body, headers)
        return self._send(404, b"{}", with_body, {"X-Error-Code": "EntryNotFound"})

    def _send(self, status: int, data: bytes, with_body: bool, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass
