"""Layers on several devices, other ones in a prefill than for a token: right logits, each on the device of the plan.

The GPUs here are labelled (`labelled_devices`): an operation on tensors of two devices fails, as it does on CUDA.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from labelled_devices import LabelledDevices, label
from placing import bytes_to_read, emulated, labelled, letters_for, opened, plan_of
from tiny_model import FAMILIES, Family, reference_logits, save, some_tokens

from llmrun.checkpoint import ModelSpec, read_spec
from llmrun.engine.forward import Forward
from llmrun.errors import DeviceError, Interrupted
from llmrun.events import Event, LayerDone
from llmrun.models.unit_module import Gate, RestModule
from llmrun.planner.plan import Plan, Slots
from llmrun.runtime.host import HostWeights
from llmrun.runtime.kv_cache import KVCache

OPT = Family(  # learned positions, and projections before and after the layers
    "opt",
    "OPTConfig",
    {"ffn_dim": 48, "num_key_value_heads": 4, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
)
ALL = FAMILIES | {"opt": OPT}

# embedding, rest, six layers, head
PLACEMENTS = {
    "gpu": "R00000000",
    "rest elsewhere": "d0RRdRRdR",
    "last layer on the cpu": "d000xRRR0",
    "cpu layers between gpu layers": "dRR0d1Ra1",
    "two gpus in turn": "d1x1a1yb0",
    "prompts on the gpu": "d0pppppp0",
    "prompts on the gpu, from disk": "dRvvvvvvR",
    "prompts on two gpus": "R1pqvwRd0",
    "all kinds": "d0vx0Rpad",
}
SLOTS = [Slots(1, 1), Slots(2, 2), Slots(1, 3), Slots(5, 1), Slots(3, 5)]
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, ModelSpec]]:
    made: dict[str, tuple[Any, ModelSpec]] = {}

    def get(family: str) -> tuple[Any, ModelSpec]:
        if family not in made:
            model = ALL[family].build()
            made[family] = model, read_spec(save(model, tmp_path_factory.mktemp(family)))
        return made[family]

    return get


def talk(forward: Forward, cache: KVCache, model: Any) -> None:
    """A short prompt, a long one that begins as the first did, tokens after each."""
    first, second = some_tokens(16), some_tokens(60, seed=9)
    second[:9] = first[:9]
    expected = reference_logits(model, first)
    close(forward.prefill(first[:12]), expected[11])
    for position in range(12, 16):
        close(forward.decode(first[position]), expected[position])
    expected = reference_logits(model, second)
    kept = cache.reuse(second)
    close(forward.prefill(second[kept:56]), expected[55])
    for position in range(56, 60):
        close(forward.decode(second[position]), expected[position])


@pytest.mark.parametrize(
    ("family", "placement"),
    [
        *itertools.product(["gemma3", "mistral"], PLACEMENTS),
        *itertools.product(["gpt2", "opt"], ["rest elsewhere", "prompts on two gpus", "all kinds"]),
    ],
)
def test_equal_to_transformers(saved: Callable[[str], tuple[Any, ModelSpec]], family: str, placement: str) -> None:
    model, spec = saved(family)
    slots = SLOTS[list(PLACEMENTS).index(placement) % len(SLOTS)]
    plan = plan_of(spec, letters_for(spec, PLACEMENTS[placement]), slots=slots)
    with opened(spec, plan, labelled) as (forward, cache, _):
        talk(forward, cache, model)
        for layer, kv in enumerate(cache.layers):
            home = label(plan.placement(f"layer {layer}").device)
            assert {memory.device for memory in (*kv.home, kv.keys, kv.values)} == {home}


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("placement", ["gpu", "two gpus in turn", "prompts on two gpus", "all kinds"])
def test_rings_of_any_number_of_slots(
    saved: Callable[[str], tuple[Any, ModelSpec]], placement: str, slots: Slots
) -> None:
    model, spec = saved("qwen2-sliding")
    with opened(spec, plan_of(spec, PLACEMENTS[placement], slots=slots), emulated) as (forward, cache, _):
        talk(forward, cache, model)


def test_a_small_module_seems_to_be_where_its_input_is() -> None:
    """So that a model may add learned positions to embeddings that lie elsewhere."""
    with LabelledDevices():
        positions = torch.nn.Embedding(4, 2).to(label("gpu:1"))
        ids = torch.arange(3).to(label("gpu:0"))
        out = RestModule(positions, Gate())(ids)
        assert out.device == ids.device
        assert torch.equal(out.cpu(), positions.weight.cpu()[:3])


def devices_of(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.unit, event.device) for event in events if isinstance(event, LayerDone) and event.unit != "rest"]


def test_each_unit_is_computed_once_a_pass_where_the_plan_says(
    saved: Callable[[str], tuple[Any, ModelSpec]],
) -> None:
    """Also where a prompt has several chunks: they all pass through a layer, and use its KV cache, in one turn."""
    _, spec = saved("llama")
    plan = plan_of(spec, PLACEMENTS["prompts on two gpus"])
    tokens = some_tokens(50)
    events: list[Event] = []
    with opened(spec, plan, labelled, emit=events.append) as (forward, _, _):
        for prompt in (tokens[:12], tokens[12:50]):
            del events[:]
            forward.prefill(prompt)
            computed = plan.placements[2:]
            assert devices_of(events) == [(p.unit, p.prefill_device) for p in computed]
        del events[:]
        forward.decode(5)
        assert devices_of(events) == [(p.unit, p.device) for p in computed]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_what_is_allocated_is_what_the_plan_counts(
    saved: Callable[[str], tuple[Any, ModelSpec]], placement: str
) -> None:
    model, spec = saved("qwen2-sliding")
    plan = plan_of(spec, PLACEMENTS[placement], slots=Slots(3, 2))
    accelerators = {device: labelled(device) for device in plan.gpus}
    with opened(spec, plan, accelerators.__getitem__) as (forward, cache, host):
        talk(forward, cache, model)
        for memory in plan.memory:
            lines = {line.label: line.nbytes for line in memory.lines}
            planned_bytes = sum(lines.get(name, 0) for name in ("weights", "weight ring", "KV visit"))
            if memory.device == "cpu":
                host_bytes = sum(m.nbytes for m in host.memories(unit.name for unit in spec.units))
                assert host_bytes == planned_bytes
            else:
                assert accelerators[memory.device].used_bytes() == (planned_bytes, planned_bytes)
            homes = [kv.home for kv in cache.layers if kv.keys.device == label(memory.device)]
            assert sum(m.nbytes for home in homes for m in home) == lines.get("KV cache", 0)


def streamed_bytes(spec: ModelSpec, plan: Plan, host: HostWeights) -> int:
    """What every pass needs from disk."""
    streamed = [p.unit for p in plan.placements if p.home == "disk" and p.unit != "embedding"]
    return sum(bytes_to_read(spec, host, unit) for unit in streamed)


@pytest.mark.parametrize(
    ("letters", "spare_units"),
    [
        ("dRdRdRdRd", 2),  # two slots, full at the end
        ("d0x0dRd0x", 5),  # in each ring, and one that is being copied
        ("dRdpdpdRd", 2),  # a prompt's other devices take from RAM alone, and find there all that was read ahead
        ("dRdvdvdRd", 2),  # what was read ahead is handed to the GPU instead
        ("d0xpdpxp0", 10),  # the GPU's ring has taken units out of RAM's, for a token; both are filled anew
    ],
)
def test_what_was_read_ahead_is_used_by_the_next_pass(
    saved: Callable[[str], tuple[Any, ModelSpec]], letters: str, spare_units: int
) -> None:
    _, spec = saved("llama")
    plan = plan_of(spec, letters)
    tokens = some_tokens(48)
    with opened(spec, plan) as (forward, _, host):
        forward.prefill(tokens[:20])
        for token in tokens[20:24]:
            forward.decode(token)
        forward.prefill(tokens[24:44])
        for token in tokens[44:]:
            forward.decode(token)
        read = [unit.name for unit in spec.units if unit.tensors and unit.name != "embedding"]
        once_bytes = sum(bytes_to_read(spec, host, unit) for unit in read)
        needed_bytes = once_bytes + 9 * streamed_bytes(spec, plan, host)
        largest_bytes = max(bytes_to_read(spec, host, unit) for unit in read)
        assert needed_bytes <= host.bytes_read <= needed_bytes + spare_units * largest_bytes


class CancelledAfter(threading.Event):
    """Is set by being asked: after ``count`` times, so that a pass breaks off at that very point."""

    count = 10**9

    def is_set(self) -> bool:
        self.count -= 1
        return self.count < 0


@pytest.mark.parametrize(
    ("family", "placement"),
    [("llama", "all kinds"), ("mistral", "gpu"), ("mistral", "prompts on the gpu"), ("mistral", "all kinds")],
)
def test_a_long_prompt_that_is_broken_off_anywhere_leaves_the_cache_as_it_was(
    saved: Callable[[str], tuple[Any, ModelSpec]], family: str, placement: str
) -> None:
    model, spec = saved(family)
    tokens, cancel = some_tokens(61), CancelledAfter()
    expected = reference_logits(model, tokens)
    with opened(spec, plan_of(spec, PLACEMENTS[placement]), labelled, cancel) as (forward, cache, _):
        for count in (4, 14, 23):  # it is asked at least 25 times: for 6 layers, their 3 chunks each, and the head
            cancel.count = 10**9
            cache.reuse([])
            forward.prefill(tokens[:19])
            close(forward.decode(tokens[19]), expected[19])
            cancel.count = count
            with pytest.raises(Interrupted):
                forward.prefill(tokens[20:60])
            cancel.count = 10**9
            kept = cache.reuse(tokens[:60])
            close(forward.prefill(tokens[kept:60]), expected[59])
            close(forward.decode(tokens[60]), expected[60])


@pytest.mark.parametrize("letters", ["dRvvvvvvR", "d0vx0Rpad", "d0ppdpvpx"])
def test_a_read_that_fails_in_a_prompt_can_be_tried_again(tmp_path: Path, letters: str) -> None:
    model = FAMILIES["mistral"].build()
    spec = read_spec(save(model, tmp_path))
    tokens = some_tokens(61)
    expected = reference_logits(model, tokens)
    shard = tmp_path / "model.safetensors"
    whole = shard.read_bytes()
    with opened(spec, plan_of(spec, letters), labelled) as (forward, cache, _):
        forward.prefill(tokens[:19])
        close(forward.decode(tokens[19]), expected[19])
        os.truncate(shard, 4096)
        with pytest.raises(DeviceError, match="offset"):
            forward.prefill(tokens[20:60])
        shard_again(shard, whole)
        kept = cache.reuse(tokens[:60])
        close(forward.prefill(tokens[kept:60]), expected[59])
        close(forward.decode(tokens[60]), expected[60])


def shard_again(shard: Path, whole: bytes) -> None:
    """The file as it was, under the same descriptor."""
    with shard.open("r+b") as file:
        file.write(whole)
