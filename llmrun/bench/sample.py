"""One repetition of a case: given tokens through an engine, and what its events say of that."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, cast

from llmrun.bench.case import Case
from llmrun.events import Event, Token
from llmrun.metrics import MetricsState, Phase, apply

Watch = Callable[[Event], None]


class Replayer(Protocol):
    """What a case is run on: the engine, or a stand-in for tests."""

    def replay(self, prompt: Sequence[int], following: Sequence[int]) -> Iterator[Event]:
        """The events of a prompt and of the passes over all of ``following`` but its last."""
        ...

    def extend(self, prompt: Sequence[int], new_tokens: int) -> Iterator[Event]:
        """The same with the tokens that the model itself finds likeliest."""
        ...


class RandomTokens:
    """Prompts of random tokens; two that come after each other differ in the first, so that no KV cache is reused."""

    def __init__(self, vocab_size: int, seed: int) -> None:
        self._vocab_size = vocab_size
        self._seed = seed
        self._random = random.Random(seed)
        self._count = 0

    def fresh(self, count: int) -> list[int]:
        """Tokens that did not come before."""
        if not count:
            return []
        self._count += 1
        return [self._count % self._vocab_size, *self._draw(self._random, count - 1)]

    def past(self, count: int) -> list[int]:
        """The tokens that are in the KV cache already: the beginning of one sequence, always the same."""
        return self._draw(random.Random(self._seed), count)

    def _draw(self, source: random.Random, count: int) -> list[int]:
        return source.choices(range(self._vocab_size), k=count)


@dataclass(frozen=True)
class Sample:
    """What one repetition gave.

    ``start_s`` is that of an engine started for it, which is part of the time to its first token.
    """

    case: Case
    state: MetricsState
    token_at_s: tuple[float, ...]
    start_s: float = 0.0

    @property
    def seconds(self) -> float:
        """The time over which the rate is taken: of the prompt, if the case has one, and of its new tokens."""
        return sum(phase.seconds for phase in self.phases) + (self.start_s if self.case.n_prompt else 0.0)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The measured parts: prefill, decode, or both."""
        wanted = [(self.case.n_prompt, self.state.prefill), (self.case.n_gen, self.state.decode)]
        return tuple(phase for count, phase in wanted if count and phase)

    @property
    def disk_bytes(self) -> int:
        """Read from disk in that time."""
        return sum(phase.read_bytes.get("disk", 0) for phase in self.phases)

    @property
    def stall_s(self) -> float:
        """Waited for weights in that time."""
        return sum(phase.stall_s for phase in self.phases)

    @property
    def ttft_s(self) -> float | None:
        """To the first token; ``None`` where the prompt is not measured."""
        ttft_s = self.state.ttft_s
        return self.start_s + ttft_s if self.case.n_prompt and ttft_s is not None else None

    @property
    def tpot_s(self) -> float | None:
        """For each new token; ``None`` without any."""
        return self.state.tpot_s if self.case.n_gen else None

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Between each token and the one before."""
        return tuple(after - before for before, after in pairwise(self.token_at_s)) if self.case.n_gen else ()

    @property
    def predicted_s(self) -> float | None:
        """What the plan says of the same time."""
        if self.state.expected is None:
            return None
        prompt_s = self.start_s + self.state.expected.ttft_s if self.case.n_prompt else 0.0
        return prompt_s + self.case.n_gen * self.state.expected.tpot_s


def take_sample(
    engine: Replayer,
    case: Case,
    tokens: RandomTokens,
    watch: Watch,
    *,
    own_tokens: bool = False,
    start_s: float = 0.0,
) -> Sample:
    """Run the case once; what has to be in the KV cache before it is brought there first, untimed.

    Args:
        watch: sees every event as it comes.
        own_tokens: the new tokens are the model's own, not random.
        start_s: what starting the engine took, if it was started for this sample.

    Raises:
        LlmrunError: what the engine raises.
    """
    past = tokens.past(case.n_depth)
    if past and case.n_prompt:
        _watched(engine.replay(past, [0]), watch)
    prompt = [*past, *tokens.fresh(case.n_prompt)] or tokens.fresh(1)
    if own_tokens:
        events = engine.extend(prompt, case.n_gen + 1)
    else:
        events = engine.replay(prompt, tokens.fresh(case.n_gen + 1))
    state, token_at_s = _watched(events, watch)
    assert len(token_at_s) == case.n_gen + 1, "one token after the prompt and one for each pass"
    return Sample(case, state, token_at_s, start_s)


def _watched(events: Iterator[Event], watch: Watch) -> tuple[MetricsState, tuple[float, ...]]:
    """The figures and the moments of the tokens; whatever stops this stops the engine's work."""
    state, token_at_s = MetricsState(), []
    with closing(cast(Generator[Event, None, None], events)):
        for event in events:
            watch(event)
            state = apply(state, event)
            if isinstance(event, Token):
                token_at_s.append(event.at_s)
    return state, tuple(token_at_s)
