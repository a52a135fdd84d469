"""What the KV cache takes of the memory of the process."""

from __future__ import annotations

import pytest
import torch

from llmrun.hardware import process_memory
from llmrun.runtime.kv_cache import FullLayer, Position, SlidingLayer
from llmrun.units import MIB


def test_only_the_pages_of_tokens_that_came_are_resident() -> None:
    position = Position()
    layer = FullLayer(1 << 17, position, torch.device("cpu"), torch.float32)
    states = torch.ones(1, 8, 16, 64)
    before_bytes = process_memory().anonymous_bytes
    layer.update(states, states)
    assert layer.home[0].nbytes == 256 * MIB
    assert process_memory().anonymous_bytes - before_bytes < 32 * MIB
    position.tokens = 16
    keys, values = layer.update(states, 2 * states)
    assert keys.shape == (1, 8, 32, 64)
    assert values[0, :, :, 0].unique(dim=0).tolist() == [[1.0] * 16 + [2.0] * 16]


@pytest.mark.parametrize(("window", "sees"), [(None, 6), (4, 3)])
def test_what_is_put_into_a_layers_room_is_in_the_layer(window: int | None, sees: int) -> None:
    """As the kernels do it, which attend to a few tokens by themselves."""
    position, cpu = Position(), torch.device("cpu")
    layer = FullLayer(16, position, cpu, torch.float16)
    if window:
        layer = SlidingLayer(16, window, position, cpu, torch.float16)
    assert layer.room(2) is None  # nobody said yet how large keys are
    old, new = torch.full((1, 2, 6, 4), 1.0), torch.full((1, 2, 2, 4), 2.0)
    layer.update(old, old)
    position.tokens = 6
    room = layer.room(2)
    assert room is not None
    assert room.past == sees
    assert room.keys.dtype == torch.float16
    for memory in (room.keys, room.values):
        assert memory.shape[2] >= sees + 2
        assert bool((memory[:, :, :sees] == 1).all())
        memory[:, :, sees : sees + 2] = new
    position.tokens = 8
    keys, _ = layer.update(3 * new, 3 * new)
    told = [1.0] * sees + [2.0, 2.0, 6.0, 6.0]
    assert keys[0, 0, :, 0].tolist() == (told[-(window + 1) :] if window else told)
