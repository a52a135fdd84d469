"""The files of a checkpoint, wherever they lie: in a folder, or only their beginnings, made or sent by others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llmrun.checkpoint.strict_json import open_regular
from llmrun.errors import CheckpointError


class Files(Protocol):
    """What is asked of a checkpoint's files to describe it. Every method raises ``CheckpointError``.

    A file that is not there is ``missing-shard``.
    """

    @property
    def place(self) -> str:
        """Where they are: an absolute folder, or something with ``://`` that no weight can be read from."""

    def names(self) -> set[str]:
        """What the top folder holds."""

    def nbytes(self, file: str) -> int:
        """How long a file is."""

    def written_ns(self, file: str) -> int | None:
        """When a file was last written, in nanoseconds since 1970; ``None`` where nobody knows."""

    def read(self, file: str, start: int, nbytes: int) -> bytes:
        """Some bytes of a file; fewer only where it ends."""

    def expect(self, files: Sequence[str]) -> None:
        """Told which headers are read next, so that they can be fetched at once."""


@dataclass(frozen=True)
class LocalFiles:
    """A folder on this disk."""

    folder: Path

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.folder)

    def names(self) -> set[str]:
        """As ``Files``; ``unreadable`` where the folder cannot be listed."""
        try:
            return {path.name for path in self.folder.iterdir()}
        except OSError as error:
            raise CheckpointError("unreadable", f"cannot list the folder {self.folder}: {error.strerror}") from error

    def nbytes(self, file: str) -> int:
        """As ``Files``; ``unreadable`` where it is no regular file."""
        return self._status(file).st_size

    def written_ns(self, file: str) -> int | None:
        """As ``Files``."""
        return self._status(file).st_mtime_ns

    def read(self, file: str, start: int, nbytes: int) -> bytes:
        """As ``Files``; ``unreadable`` where the disk fails."""
        descriptor = open_regular(self.folder / file, file)
        try:
            with os.fdopen(descriptor, "rb", buffering=0) as raw:
                raw.seek(start)
                return _read_all(raw.fileno(), nbytes)
        except OSError as error:
            raise CheckpointError("unreadable", f"cannot read {self.folder / file}: {error.strerror}") from error

    def expect(self, files: Sequence[str]) -> None:
        """Nothing: a disk answers at once."""

    def _status(self, file: str) -> os.stat_result:
        descriptor = open_regular(self.folder / file, file)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class HeadersOnly:
    """The beginnings of files in memory; ``sizes`` are what the files would be in full, where that is more."""

    place: str
    beginnings: Mapping[str, bytes]
    sizes: Mapping[str, int]

    def names(self) -> set[str]:
        """As ``Files``."""
        return set(self.beginnings)

    def nbytes(self, file: str) -> int:
        """As ``Files``."""
        self._check(file)
        return self.sizes.get(file, len(self.beginnings[file]))

    def written_ns(self, file: str) -> int | None:
        """Nobody knows."""
        return None

    def read(self, file: str, start: int, nbytes: int) -> bytes:
        """As ``Files``; no more than the beginning is there."""
        self._check(file)
        return self.beginnings[file][start : start + nbytes]

    def expect(self, files: Sequence[str]) -> None:
        """Nothing: all of it is here."""

    def _check(self, file: str) -> None:
        if file not in self.beginnings:
            raise CheckpointError("missing-shard", f"{file} is not in {self.place}")


def _read_all(descriptor: int, nbytes: int) -> bytes:
    chunks: list[bytes] = []
    missing = nbytes
    while missing and (chunk := os.read(descriptor, missing)):
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)
