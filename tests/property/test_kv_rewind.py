"""What a pass took into the KV cache can be taken back, but for its first token; a draft wholly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrun.runtime.kv_cache import KVCache, Position, SlidingLayer

WINDOW, CHUNK = 8, 6
CAPACITY = WINDOW + CHUNK

# tokens of a prompt in chunks, then for each pass: how much is drafted in passes of one token, verified, and kept of it
prompts = st.lists(st.integers(1, CHUNK), min_size=1, max_size=4)
passes = st.lists(st.tuples(st.integers(0, CHUNK - 1), st.booleans(), st.integers(1, CHUNK)), max_size=40)


def made() -> tuple[KVCache, SlidingLayer]:
    """The cache of a conversation with one layer that has a window."""
    cache = object.__new__(KVCache)
    cache.position, cache.tokens = Position(), []
    cache.layers = [SlidingLayer(CAPACITY, WINDOW, cache.position, torch.device("cpu"), torch.float32)]
    return cache, cache.layers[0]


def states(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count).view(1, 1, -1, 1) + torch.zeros(1, 2, 1, 3)


def take(cache: KVCache, count: int, mark: float = 0.0) -> list[float]:
    """A pass over so many tokens: what the last of them attends to, of the first head and dimension."""
    new = states(cache.position.tokens, count) + mark
    keys, _ = cache.layers[0].update(new, -new)
    cache.append([0] * count)
    return keys[0, 0, :, 0].tolist()


def seen_by(position: int, count: int) -> list[float]:
    """What a pass over ``count`` tokens from ``position`` on attends to."""
    return [float(i) for i in range(max(0, position - (WINDOW - 1)), position + count)]


@settings(deadline=None)
@given(prompts, passes)
def test_whatever_is_taken_back_the_next_pass_sees_what_it_should(
    prompt: list[int], passes: list[tuple[int, bool, int]]
) -> None:
    cache, layer = made()
    for count in prompt:
        take(cache, count)
    for drafted, on_the_cache, kept in passes:
        start = len(cache.tokens)
        if on_the_cache:
            with cache.drafting():
                for i in range(drafted + 1):
                    assert take(cache, 1, mark=0.5)[-1] == start + i + 0.5
        assert len(cache.tokens) == start
        assert take(cache, drafted + 1) == seen_by(start, drafted + 1)
        cache.rewind(start + min(kept, drafted + 1))
        assert layer.keeps(len(cache.tokens))


def test_without_notice_a_window_that_moves_would_lose_what_a_draft_goes_back_to() -> None:
    cache, layer = made()
    for _ in range(CAPACITY):
        take(cache, 1)
    take(cache, 1)
    take(cache, 1)
    cache.rewind(CAPACITY)
    assert layer.keeps(CAPACITY)  # the pass over the first of the two has moved it, and kept what that needs
    cache.rewind(CAPACITY - 1)
    assert not layer.keeps(CAPACITY - 1)


def test_a_draft_that_fails_is_taken_back_too() -> None:
    cache, _ = made()
    take(cache, 3)
    with pytest.raises(InterruptedError):
        fail(cache)
    assert (len(cache.tokens), cache.position.tokens, cache.position.kept) == (3, 3, None)


def fail(cache: KVCache) -> None:
    with cache.drafting():
        take(cache, 2)
        raise InterruptedError
