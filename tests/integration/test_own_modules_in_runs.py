"""A run takes the modules of our own: without them it gives the same numbers, and a fifth fewer tokens a second."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from placing import letters_for, opened, plan_of
from tiny_model import FAMILIES, save, some_tokens

from llmrun.checkpoint import read_spec
from llmrun.checkpoint.spec import UnitKind
from llmrun.kernels import cached_attention, gated_mlp
from llmrun.kernels.library import find_library

pytestmark = pytest.mark.skipif(find_library() is None, reason="the kernels were not built")


@pytest.mark.parametrize("letters", ["RRRRRRRRR", "dRsRssRsR"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_every_layer_of_a_token_is_two_calls(
    family: str, letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    for module, name in ((cached_attention, "attend"), (gated_mlp, "gated_mlp")):
        own: Any = getattr(module, name)

        def counted(*args: Any, own: Any = own, name: str = name) -> torch.Tensor:
            calls[name] += 1
            return own(*args)

        monkeypatch.setattr(module, name, counted)
    spec = read_spec(save(FAMILIES[family].build(), tmp_path, dtype=torch.bfloat16))
    layers = sum(unit.kind is UnitKind.LAYER for unit in spec.units)
    with opened(spec, plan_of(spec, letters_for(spec, letters))) as (forward, _, _):
        forward.prefill(some_tokens(40))
        calls.clear()  # a prompt's are the model's own
        for token in (3, 4, 5):
            forward.decode(token)
        assert calls == {"attend": 3 * layers, "gated_mlp": 3 * layers}
        forward.verify([6, 7, 8])
        assert calls == {"attend": 4 * layers, "gated_mlp": 4 * layers}
