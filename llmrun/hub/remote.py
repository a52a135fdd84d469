"""A model on the hub, described from the headers of its files: no weight is fetched, nothing is written to this disk.

huggingface_hub can read headers, too, but puts the index into its cache and takes whatever a server sends that does
not know range requests, which is all of the weights; so the few requests are made here, through its session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from llmrun.checkpoint import ModelSpec, spec_from_headers
from llmrun.checkpoint.header import FIRST_BYTES
from llmrun.errors import CheckpointError, DeviceError
from llmrun.hub.hf_cache import HubId
from llmrun.hub.huggingface import file_sizes, needed_files, telling
from llmrun.hub.model import Notify
from llmrun.units import format_bytes

_READING = ("reading the headers", "try again: nothing is kept on the way")
_PARALLEL = 8  # requests at a time: a model of 400 GB has 200 files
_TIMEOUT_S = 10.0  # without a byte


def read_remote_spec(hub: HubId, *, name: str, notify: Notify, trust_remote_code: bool = False) -> ModelSpec:
    """The model ``hub``, called ``name``; ``folder`` of the result is ``hf://ORG/NAME@COMMIT``.

    Raises:
        CheckpointError: ``model-not-found``, ``revision-not-found``, ``model-gated``, and as ``read_spec``.
        DeviceError: ``download-failed``, ``ranges-ignored``.
    """
    with telling(hub, *_READING):
        commit, sizes = file_sizes(hub)
    needed = needed_files(hub, list(sizes))
    total = format_bytes(sum(sizes[file] for file in needed))
    notify(f"reading the headers of {hub} on the hub; its {total} stay there")
    files = RemoteFiles(hub, commit, sizes, frozenset(needed))
    return spec_from_headers(files, name=name, trust_remote_code=trust_remote_code)


@dataclass(frozen=True)
class RemoteFiles:
    """The files of a revision on the hub: ``llmrun.checkpoint.Files`` by HTTP."""

    hub: HubId
    commit: str  # what the revision was at when the files were listed
    sizes: Mapping[str, int]
    needed: frozenset[str]  # those that a run would download
    _beginnings: dict[str, bytes] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """``hf://ORG/NAME@COMMIT``."""
        return f"hf://{self.hub.repo}@{self.commit}"

    def names(self) -> set[str]:
        """As ``Files``."""
        return set(self.needed)

    def nbytes(self, file: str) -> int:
        """As ``Files``."""
        if file not in self.sizes:
            raise CheckpointError("missing-shard", f"{file} is not in {self.place}")
        return self.sizes[file]

    def written_ns(self, file: str) -> int | None:
        """Not asked for."""
        return None

    def read(self, file: str, start: int, nbytes: int) -> bytes:
        """As ``Files``; also ``DeviceError``: ``download-failed``, ``ranges-ignored``."""
        end = min(start + nbytes, self.nbytes(file))
        known = self._beginnings.get(file, b"")
        return known[start:end] if end <= len(known) else self._fetch(file, start, end)

    def expect(self, files: Sequence[str]) -> None:
        """Fetch the beginnings of all of these at once."""
        there = [file for file in files if self.sizes.get(file)]
        with ThreadPoolExecutor(_PARALLEL) as pool:
            beginnings = pool.map(lambda file: self.read(file, 0, FIRST_BYTES), there)
            self._beginnings.update(zip(there, beginnings, strict=True))

    def _fetch(self, file: str, start: int, end: int) -> bytes:
        from huggingface_hub import constants, get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        url = hf_hub_url(self.hub.repo, file, revision=self.commit, endpoint=constants.ENDPOINT)
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        part = (start, end) != (0, self.sizes[file])
        if part:
            headers["Range"] = f"bytes={start}-{end - 1}"
        with (
            telling(self.hub, *_READING),
            get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response,
        ):
            hf_raise_for_status(response)
            is_part = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if part and (response.status_code != 206 or not is_part):
                raise self._ranges_ignored(file)
            return _at_most(response.iter_bytes(), end - start)

    def _ranges_ignored(self, file: str) -> DeviceError:
        size = format_bytes(self.sizes[file])
        return DeviceError(
            "ranges-ignored",
            f"asked for a part of {file} of {self.hub.repo}, the hub sends all of it ({size}); it was stopped",
            hint="a proxy on the way may do that; `llmrun pull` downloads the model",
        )


def _at_most(chunks: Iterable[bytes], nbytes: int) -> bytes:
    """The first bytes of a body, however long it turns out to be."""
    taken = bytearray()
    for chunk in chunks:
        taken += chunk
        if len(taken) >= nbytes:
            break
    return bytes(taken[:nbytes])
