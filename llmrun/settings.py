"""What the user asks for: how much memory, how long a context, how to sample."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

DEFAULT_CONTEXT_TOKENS = 4096
DEFAULT_PREFILL_CHUNK_TOKENS = 256


@dataclass(frozen=True)
class Workload:
    """What is to be run: it decides the KV cache and the workspace.

    ``past_tokens`` are in the KV cache before the prompt: an earlier part of the conversation.
    ``draft_tokens``: the most that are drafted, and verified in one pass with the one before them.
    ``draft_model_bytes``: of RAM that a model takes which drafts them, for this context.
    """

    context_tokens: int = DEFAULT_CONTEXT_TOKENS
    past_tokens: int = 0
    prompt_tokens: int = 512
    new_tokens: int = 256
    batch: int = 1
    prefill_chunk_tokens: int = DEFAULT_PREFILL_CHUNK_TOKENS
    draft_tokens: int = 0
    draft_model_bytes: int = 0


@dataclass(frozen=True)
class Budget:
    """Bytes that the whole process may take on each device; ``cpu`` is the RAM, ``gpu:0`` the first GPU."""

    ram_bytes: int
    vram_bytes: Mapping[str, int] = field(default_factory=dict)

    def on(self, device: str) -> int:
        """The limit on a device."""
        return self.ram_bytes if device == "cpu" else self.vram_bytes[device]


class Quality(StrEnum):
    """How near to the checkpoint's own numbers a run stays."""

    LOSSLESS = "lossless"
    HIGH = "high"
    BALANCED = "balanced"
    SMALL = "small"

    @property
    def fine(self) -> bool:
        """Whether the CPU rounds what meets integer weights to 16 bits, not to 8."""
        return self in (Quality.LOSSLESS, Quality.HIGH)

    @property
    def kept_formats(self) -> tuple[str, ...]:
        """The formats in which a plan may keep plain weights in RAM, by their names for ``--format``."""
        return _KEPT_FORMATS[self]


_KEPT_FORMATS: Mapping[Quality, tuple[str, ...]] = {
    Quality.LOSSLESS: (),
    Quality.HIGH: ("q8",),
    Quality.BALANCED: ("q8", "q4"),
    Quality.SMALL: ("q4",),
}


@dataclass(frozen=True)
class Precision:
    """Which bits of a model are computed with.

    ``format``: plain weights that stay in RAM are kept so, by its name for ``--format``; ``None``: the plan decides
    within what the quality allows.
    """

    quality: Quality = Quality.LOSSLESS
    format: str | None = None

    @property
    def kept_formats(self) -> tuple[str, ...]:
        """The formats that a plan may keep plain weights in."""
        return (self.format,) if self.format else self.quality.kept_formats

    @property
    def words(self) -> str:
        """``quality balanced``, ``quality high, format q4``."""
        return f"quality {self.quality}" + (f", format {self.format}" if self.format else "")


LOSSLESS = Precision()


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is chosen; ``None`` means what the model's own generation config says.

    ``temperature`` 0 is greedy and deterministic; ``ignore_eos`` goes on after the token that ends an answer.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


AUTO, OFF, SELF, NGRAM = "auto", "off", "self", "ngram"
SPECULATE_WORDS = (AUTO, OFF, SELF, NGRAM)

DEFAULT_DRAFT_TOKENS = 31
"""With the token before them 32, the most that the CPU multiplies by plain weights as they lie in one go."""


@dataclass(frozen=True)
class Speculating:
    """Whether tokens are drafted, to be verified several in a pass: the answer is the same.

    ``method``: ``auto``, ``off``, ``self`` (the model in fewer bits drafts), ``ngram`` (the text so far does), or what
    another model is called, which drafts then. ``draft_tokens``: a draft has no more.
    """

    method: str = AUTO
    draft_tokens: int = DEFAULT_DRAFT_TOKENS

    @property
    def model(self) -> str | None:
        """The model that drafts, where another does."""
        return None if self.method in SPECULATE_WORDS else self.method


SPECULATE_AUTO, SPECULATE_OFF = Speculating(), Speculating(OFF)


def cache_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Where llmrun keeps what it makes: LLMRUN_CACHE, else a folder in the user's cache folder."""
    if env.get("LLMRUN_CACHE"):
        return Path(env["LLMRUN_CACHE"]).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("llmrun")
