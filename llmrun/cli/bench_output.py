"""Where the rows of ``llmrun bench`` go."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llmrun.bench.formats import writer

if TYPE_CHECKING:
    from llmrun.bench.row import Row


class Output:
    """Where rows go: standard output, and standard error too where that is asked for.

    Raises:
        UsageError: ``bad-option``, there is no such format.
    """

    def __init__(self, kind: str, error_kind: str | None) -> None:
        self.rows: list[Row] = []
        self._writers = [writer(kind, sys.stdout)]
        if error_kind:
            self._writers.append(writer(error_kind, sys.stderr))
        self._begun = False

    def begin(self) -> None:
        """What comes before the rows; what fails earlier prints nothing."""
        if not self._begun:
            self._begun = True
            for one in self._writers:
                one.begin()

    def row(self, row: Row) -> None:
        """One more row."""
        self.rows.append(row)
        for one in self._writers:
            one.row(row)

    def end(self) -> None:
        """What comes after the rows, however many there are."""
        if self._begun:
            self._begun = False
            for one in self._writers:
                one.end()
