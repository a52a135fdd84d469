"""The CUDA path on a real GPU: the same placements as on the emulated one, and its overlap."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from placing import letters_for, opened, plan_of
from tiny_model import FAMILIES, reference_logits, save, some_tokens

from llmrun.checkpoint import read_spec
from llmrun.events import Event, LayerDone
from llmrun.planner.plan import Slots
from llmrun.runtime.accelerator import Accelerator, CudaAccelerator

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

PLACEMENTS = {
    "gpu": "R00000000",
    "ram to gpu": "R0aaaaaaa",
    "disk to gpu": "d0xxxxxxx",
    "gpu, ram and disk": "d00ax0ax0",
    "cpu and gpu": "dRRd0ax00",
    "rest elsewhere": "dR00ax0Rd",
    "prompts on the gpu": "d0ppppppR",
    "prompts on the gpu, all kinds": "d0vpx0RdR",
}


def cuda(device: str) -> Accelerator:
    return CudaAccelerator(int(device.removeprefix("gpu:")))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("family", ["llama", "llama-tied", "gemma3", "qwen3", "phi3"])
def test_equal_to_transformers(tmp_path: Path, family: str, placement: str) -> None:
    model = FAMILIES[family].build()
    spec = read_spec(save(model, tmp_path))
    tokens = some_tokens(45)
    expected = reference_logits(model, tokens)
    letters = letters_for(spec, PLACEMENTS[placement])
    with opened(spec, plan_of(spec, letters), cuda) as (forward, _, _):
        torch.testing.assert_close(forward.prefill(tokens[:33]), expected[32], rtol=1e-3, atol=1e-4)
        for position in range(33, 45):
            logits = forward.decode(tokens[position])
            torch.testing.assert_close(logits, expected[position], rtol=1e-3, atol=1e-4)


def test_device_memory_is_what_the_plan_says(tmp_path: Path) -> None:
    spec = read_spec(save(FAMILIES["llama"].build(), tmp_path))
    plan = plan_of(spec, "d00ax0pv0", slots=Slots(1, 3))
    torch.cuda.synchronize()
    before_bytes = torch.cuda.memory_allocated()
    with opened(spec, plan, cuda):
        taken_bytes = torch.cuda.memory_allocated() - before_bytes
    lines = {line.label: line.nbytes for memory in plan.memory if memory.device == "gpu:0" for line in memory.lines}
    planned_bytes = lines["weights"] + lines["weight ring"] + lines["KV visit"]
    assert planned_bytes <= taken_bytes <= planned_bytes + 512 * len(spec.units)  # the allocator rounds up to 512


def test_a_cache_that_visits_is_at_home_between_passes(tmp_path: Path) -> None:
    """In RAM, where tokens are computed; the GPU computes the prompts, also the chunked one of a second turn."""
    model = FAMILIES["mistral"].build()
    spec = read_spec(save(model, tmp_path))
    tokens = some_tokens(60)
    expected = reference_logits(model, tokens)
    events: list[Event] = []
    with opened(spec, plan_of(spec, "d0pvpvpvR"), cuda, emit=events.append) as (forward, cache, _):
        for first, last in ((0, 12), (13, 55)):
            del events[:]
            torch.testing.assert_close(forward.prefill(tokens[first:last]), expected[last - 1], rtol=1e-3, atol=1e-4)
            layers = [event for event in events if isinstance(event, LayerDone) and event.unit.startswith("layer")]
            assert [event.device for event in layers] == ["gpu:0"] * 6
            assert {memory.device.type for kv in cache.layers for memory in (kv.keys, kv.values)} == {"cpu"}
            torch.testing.assert_close(forward.decode(tokens[last]), expected[last], rtol=1e-3, atol=1e-4)
