"""Events on their way from the thread that computes to the one that shows them."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

from llmrun.events import Accepted, Event, Finished, Token

FLUSH_S = 0.1
"""Small events travel together: waking the reader for each would take time from the computation."""


class Relay:
    """A stream of events between two threads; ``put`` and ``end`` in the one, iteration in the other."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[list[Event] | None] = queue.SimpleQueue()
        self._batch: list[Event] = []
        self._flushed_s = time.monotonic()

    def put(self, event: Event) -> None:
        """Send an event, at the latest with the next one that comes after ``FLUSH_S``."""
        self._batch.append(event)
        if isinstance(event, Accepted | Token | Finished) or event.at_s - self._flushed_s > FLUSH_S:
            self._flush()

    def end(self) -> None:
        """No event comes after this."""
        self._flush()
        self._queue.put(None)

    def __iter__(self) -> Iterator[Event]:
        while (batch := self._queue.get()) is not None:
            yield from batch

    def _flush(self) -> None:
        self._queue.put(self._batch)
        self._batch = []
        self._flushed_s = time.monotonic()
