"""Every error that a user can meet.

::

    LlmrunError                1  a bug of ours, or a base class
    |-- UsageError             2  bad-size, empty-prompt, prompt-too-long, bad-option, ...
    |-- PlanError              3  plan-over-budget, ...
    |-- CheckpointError        4  model-not-found, truncated-shard, unsupported-format, ...
    |-- DeviceError            5  read-failed, disk-full, device-missing, ...
    `-- Interrupted          130  interrupted (what was generated is kept)

The number is the exit code of the command. ``docs/errors.md`` lists every reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Row:
    """One line of the table under an error: a label, an amount and where the amount comes from."""

    label: str
    amount: str
    detail: str = ""


class LlmrunError(Exception):
    """A failure that is told to the user in one message, without a traceback.

    Args:
        reference: kebab-case name, listed in ``docs/errors.md``.
        message: one sentence with the numbers.
        rows: a table that explains the numbers.
        hint: what would help, computed.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, reference: str, message: str, *, rows: tuple[Row, ...] = (), hint: str | None = None) -> None:
        super().__init__(message)
        self.reference = reference
        self.message = message
        self.rows = rows
        self.hint = hint

    def render(self) -> str:
        """The text for stderr: reference, message, table, hint."""
        lines = [f"error: {self.reference}", self.message]
        label_width = max((len(row.label) for row in self.rows), default=0)
        amount_width = max((len(row.amount) for row in self.rows), default=0)
        for row in self.rows:
            lines.append(f"  {row.label:<{label_width}}  {row.amount:>{amount_width}}   {row.detail}".rstrip())
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UsageError(LlmrunError):
    """The command line, the environment or the input is wrong."""

    exit_code = 2


class PlanError(LlmrunError):
    """No placement keeps the promise about memory."""

    exit_code = 3


class CheckpointError(LlmrunError):
    """The model is missing, broken, or of a kind that cannot run."""

    exit_code = 4


class DeviceError(LlmrunError):
    """A device or a file system failed."""

    exit_code = 5


class Interrupted(LlmrunError):  # noqa: N818 - it is no error, though it ends a command as one does
    """The user stopped the work; what was generated is kept."""

    exit_code = 130

    def __init__(self, message: str = "stopped by the user") -> None:
        super().__init__("interrupted", message)
