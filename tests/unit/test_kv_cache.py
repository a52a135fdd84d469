"""What the KV cache takes of the memory of the process."""

from __future__ import annotations

import torch

from llmrun.hardware import process_memory
from llmrun.runtime.kv_cache import FullLayer, Position
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
