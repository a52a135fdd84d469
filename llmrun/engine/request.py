"""What the engine is asked: a prompt, and what chooses the tokens after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from llmrun.engine.speculation.draft import Drafter
from llmrun.engine.text_stream import TextStream


class Chooser(Protocol):
    """Says which token comes next."""

    def next(self, logits: torch.Tensor, past_ids: Sequence[int]) -> int:
        """The token after ``past_ids``, by ``logits`` of shape ``(V,)``."""
        ...


class Script:
    """Tokens that are given, one after the other, whatever the logits say."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._token_ids = iter(token_ids)

    def next(self, logits: torch.Tensor, past_ids: Sequence[int]) -> int:
        """The next of them."""
        return next(self._token_ids)


@dataclass(frozen=True)
class Request:
    """One answer to be made.

    Attributes:
        accepted_s: when it was asked for, by ``time.monotonic()``.
        most_tokens: at most so many; ``None``: as many as there is room for.
        room_tokens: as many as the context has room for.
        end_token_ids: the tokens that end the answer and are not part of it.
        drafter: guesses its tokens; ``None``: each has a pass of its own.
    """

    accepted_s: float
    prompt: tuple[int, ...]
    chooser: Chooser
    stream: TextStream
    most_tokens: int | None
    room_tokens: int
    end_token_ids: frozenset[int]
    drafter: Drafter | None = None

    @property
    def wanted_tokens(self) -> int:
        """No more come."""
        return min(self.most_tokens or self.room_tokens, self.room_tokens)
