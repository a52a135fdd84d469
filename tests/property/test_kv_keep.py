"""Of a pass over a tree of tokens any path may be kept: what comes after it sees the path, as if read alone."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrun.runtime.kv_cache import FullLayer, KVCache, Position

LAYERS, MOST = 2, 9
CAPACITY = 120

passes = st.lists(
    st.integers(0, MOST).flatmap(lambda count: st.tuples(st.just(count), st.sets(st.integers(1, count or 1)))),
    min_size=1,
    max_size=10,
)


def made() -> KVCache:
    cache = object.__new__(KVCache)
    cache.position, cache.tokens = Position(), []
    cache.layers = [FullLayer(CAPACITY, cache.position, torch.device("cpu"), torch.float32) for _ in range(LAYERS)]
    return cache


def take(cache: KVCache, tokens: list[int]) -> list[list[float]]:
    """A pass over tokens whose keys say which they are: what it finds in each layer, of the first head."""
    found = []
    for number, layer in enumerate(cache.layers):
        new = torch.tensor(tokens, dtype=torch.float32).view(1, 1, -1, 1) + torch.zeros(1, 2, 1, 3) + 1000 * number
        keys, values = layer.update(new, -new)
        assert torch.equal(keys, -values)
        found.append((keys[0, 0, :, 0] - 1000 * number).tolist())
    cache.append(tokens)
    return found


@settings(deadline=None)
@given(st.integers(1, 20), passes)
def test_what_is_kept_is_what_the_next_pass_sees(prompt: int, passes: list[tuple[int, set[int]]]) -> None:
    cache = made()
    text = list(range(prompt))
    take(cache, text)
    for turn, (drafted, kept) in enumerate(passes, 1):
        tokens = [100 * turn + place for place in range(drafted + 1)]
        assert take(cache, tokens) == [[*text, *tokens]] * LAYERS
        path = sorted(place - 1 for place in kept if place <= drafted)
        cache.keep(len(text) + 1, path)
        text += [tokens[0], *(tokens[place + 1] for place in path)]
        assert cache.tokens == text
        assert cache.get_seq_length() == len(text)
    assert take(cache, [7]) == [[*text, 7]] * LAYERS
