"""A model hub on this machine: just the answers that are needed to list and fetch a repository, or parts of it."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BLOCK_BYTES = 1 << 16
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """``files`` of the one repository ``org/tiny``; ``refusal`` is the error code that every request gets.

    Change these before the requests: ``sizes`` of files that are longer than their bytes here (zeros follow),
    ``file_refusal`` (as ``refusal``, for files alone), ``knows_ranges``, ``cut_at`` (bytes of a body after which the
    connection ends). ``sent_bytes`` counts bodies of files.
    """

    def __init__(self, files: Mapping[str, bytes], refusal: tuple[int, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.refusal = files, refusal
        self.file_refusal: tuple[int, str] | None = None
        self.sizes: Mapping[str, int] = {}
        self.knows_ranges = True
        self.cut_at: int | None = None
        self.fetched: list[str] = []
        self.revisions: set[str] = set()
        self.sent_bytes = 0

    def size(self, name: str) -> int:
        return self.sizes.get(name, len(self.files[name]))

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
            siblings = [{"rfilename": name, "size": self.server.size(name)} for name in files]
            info = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings}
            return self._send(200, json.dumps(info).encode(), with_body)
        if path.startswith("/api/models/org/tiny/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self._send(200, json.dumps(tree).encode(), with_body)
        if (match := re.fullmatch(r"/org/tiny/resolve/([^/]+)/(.+)", path)) and match[2] in files:
            if self.server.file_refusal:
                status, code = self.server.file_refusal
                return self._send(status, b"{}", with_body, {"X-Error-Code": code, "X-Error-Message": code})
            self.server.revisions.add(match[1])
            if with_body:  # as the real one does, which keeps large files elsewhere
                return self._send(302, b"", True, {"Location": f"/elsewhere/{match[2]}"})
            return self._send_file(match[2], with_body)
        if path.startswith("/elsewhere/"):
            return self._send_file(path.removeprefix("/elsewhere/"), with_body)
        return self._send(404, b"{}", with_body, {"X-Error-Code": "EntryNotFound"})

    def _send(self, status: int, data: bytes, with_body: bool, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def _send_file(self, name: str, with_body: bool) -> None:
        server, data = self.server, self.server.files[name]
        size = server.size(name)
        start, end = 0, size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        is_part = bool(wanted) and server.knows_ranges
        if wanted and is_part:
            start, end = int(wanted[1]), min(int(wanted[2]) + 1, size)
        self.send_response(206 if is_part else 200)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if with_body:
            server.fetched.append(name)
            self._send_body(data, start, end)

    def _send_body(self, data: bytes, start: int, end: int) -> None:
        """Block after block, until the other side has enough of it."""
        if self.server.cut_at is not None and end - start > self.server.cut_at:
            end, self.close_connection = start + self.server.cut_at, True
        for at in range(start, end, _BLOCK_BYTES):
            block = data[at : min(at + _BLOCK_BYTES, end)]
            block += bytes(min(_BLOCK_BYTES, end - at) - len(block))
            try:
                self.wfile.write(block)
            except ConnectionError:
                self.close_connection = True
                return
            self.server.sent_bytes += len(block)

    def log_message(self, *arguments: object) -> None:
        pass
