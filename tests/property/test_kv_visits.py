"""The KV cache of a layer: wherever a pass works on it, it holds what it would hold at home, and moves no more."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrun.runtime.kv_cache import FullLayer, Position, SlidingLayer

CPU = torch.device("cpu")
CAPACITY, WINDOW, CHUNK = 40, 8, 6
NAN = float("nan")

# passes, each of some chunks; whether it works on a visit; whether it breaks off and is forgotten
passes = st.lists(
    st.tuples(st.lists(st.integers(1, CHUNK), min_size=1, max_size=3), st.booleans(), st.booleans()), max_size=8
)


def layers(sliding: bool) -> tuple[FullLayer, FullLayer]:
    if sliding:
        return tuple(SlidingLayer(WINDOW + CHUNK, WINDOW, Position(), CPU, torch.float32) for _ in range(2))
    return tuple(FullLayer(CAPACITY, Position(), CPU, torch.float32) for _ in range(2))


def states(position: int, count: int) -> torch.Tensor:
    """Keys or values ``(1, 2, T, 3)`` that say whose they are."""
    return (torch.arange(position, position + count).view(1, 1, -1, 1) + torch.zeros(1, 2, 1, 3)).clone()


def run(layer: FullLayer, chunks: list[int]) -> list[torch.Tensor]:
    """What each chunk attends to."""
    start, seen = layer.position.tokens, []
    for count in chunks:
        position = layer.position.tokens
        keys, values = layer.update(states(position, count), -states(position, count))
        assert torch.equal(keys, -values)
        seen.append(keys.clone())
        layer.position.tokens += count
    layer.position.tokens = start
    return seen


@settings(deadline=None)
@given(st.booleans(), passes)
def test_a_visit_changes_nothing(sliding: bool, passes: list[tuple[list[int], bool, bool]]) -> None:
    at_home, visitor = layers(sliding)
    room = torch.empty(2 * 2 * CAPACITY * 3 * 4, dtype=torch.uint8)
    for chunks, visits, forgotten in passes:
        if at_home.position.tokens + sum(chunks) > CAPACITY:
            break
        expected = run(at_home, chunks)
        if visits:
            room.view(torch.float32).fill_(NAN)  # what is not brought cannot be read
            with visitor.visit(room):
                seen = run(visitor, chunks)
            assert visitor.keys is visitor.home[0]
        else:
            seen = run(visitor, chunks)
        assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
        tokens = at_home.position.tokens + (0 if forgotten else sum(chunks))
        for layer in (at_home, visitor):
            layer.position.tokens = tokens
        kept = at_home.keeps(tokens)
        assert visitor.keeps(tokens) == kept
        if not kept:
            for layer in (at_home, visitor):
                layer.position.tokens = 0
                layer.keeps(0)


def test_only_what_is_held_goes_and_only_what_is_new_comes_back() -> None:
    layer = FullLayer(CAPACITY, Position(), CPU, torch.float32)
    run(layer, [5])
    layer.position.tokens = 5
    layer.home[0][:, :, 5:] = NAN
    room = torch.empty(2 * 2 * CAPACITY * 3 * 4, dtype=torch.uint8)
    room.view(torch.float32).fill_(NAN)
    with layer.visit(room):
        assert [int(p.isfinite().all((0, 1, 3)).sum()) for p in (layer.keys, layer.values)] == [5, 5]
        layer.keys[:, :, :5], layer.values[:, :, :5] = 77, -77  # what is held at home stays what it is
        run(layer, [6])
    home = layer.home[0][0, 0, :, 0]
    assert home[:11].tolist() == list(range(11))
    assert home[11:].isnan().all()


def test_a_visit_that_breaks_off_leaves_a_window_whole() -> None:
    """The window had moved to the front in the room: so it has at home."""
    layer = SlidingLayer(WINDOW + CHUNK, WINDOW, Position(), CPU, torch.float32)
    room = torch.empty(2 * 2 * CAPACITY * 3 * 4, dtype=torch.uint8)
    run(layer, [6, 6])
    layer.position.tokens = 12
    with pytest.raises(InterruptedError):
        break_off(layer, room)
    seen = run(layer, [1])[0]
    assert seen[0, 0, :, 0].tolist() == list(range(12 - (WINDOW - 1), 13))


def break_off(layer: FullLayer, room: torch.Tensor) -> None:
    with layer.visit(room):
        run(layer, [4])
        raise InterruptedError
