"""A workload to measure, by llama-bench's names: ``pp512``, ``tg128``, ``pp512+tg128``, ``tg128 @ d512``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A prompt of ``n_prompt`` tokens, ``n_gen`` more one by one, after ``n_depth`` tokens that are in the KV cache."""

    n_prompt: int
    n_gen: int
    n_depth: int = 0

    @property
    def name(self) -> str:
        """As llama-bench writes it."""
        parts = [f"pp{self.n_prompt}"] * bool(self.n_prompt) + [f"tg{self.n_gen}"] * bool(self.n_gen)
        return "+".join(parts) + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def n_tokens(self) -> int:
        """The tokens over whose time the rate is taken."""
        return self.n_prompt + self.n_gen

    @property
    def context_tokens(self) -> int:
        """The context that it needs; a decoded token follows at least one other."""
        return self.n_depth + max(1, self.n_prompt) + self.n_gen
