"""Whatever the planner may choose for each unit, and whatever the rings: the same logits, within the account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelled_devices import label
from placing import labelled, opened, plan_with
from tiny_model import FAMILIES, reference_logits, save, some_tokens
from torch.testing import assert_close

from llmrun.checkpoint import ModelSpec, read_spec
from llmrun.checkpoint.spec import UnitKind, UnitSpec
from llmrun.planner.plan import CPU, DISK, Placement, Slots
from llmrun.settings import Workload

GPUS = ("gpu:0", "gpu:1")
CHOICES = [(CPU, CPU, CPU), (DISK, CPU, CPU)] + [
    (home, device, prefill)
    for gpu in GPUS
    for home, device, prefill in (
        (gpu, gpu, gpu),
        (CPU, CPU, gpu),
        (CPU, gpu, gpu),
        (DISK, CPU, gpu),
        (DISK, gpu, gpu),
    )
]


@dataclass(frozen=True)
class Talk:
    """Lengths in tokens: two prompts that begin alike, the tokens after each, and a chunk."""

    prompts: tuple[int, int]
    common: int
    new: int
    chunk: int


choices = st.lists(st.sampled_from(CHOICES), min_size=4, max_size=4)
heads = st.sampled_from([choice for choice in CHOICES if choice[1] == choice[2]])
rests = st.sampled_from([CPU, *GPUS])
slots = st.builds(Slots, st.integers(1, 5), st.integers(1, 5))
talks = st.builds(
    Talk, st.tuples(st.integers(1, 26), st.integers(2, 26)), st.integers(0, 26), st.integers(0, 3), st.integers(4, 12)
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ModelSpec]]:
    made = {name: FAMILIES[name].build(num_hidden_layers=4) for name in ("llama", "gemma3", "mistral")}
    return {name: (model, read_spec(save(model, tmp_path_factory.mktemp(name)))) for name, model in made.items()}


def placement(unit: UnitSpec, choice: tuple[str, str, str]) -> Placement:
    home, device, prefill = choice
    return Placement(unit.name, home, device, prefill if prefill != device else None)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["llama", "gemma3", "mistral"]), choices, heads, rests, slots, talks)
def test_every_plan_gives_the_logits_of_transformers_within_its_account(
    models: dict[str, tuple[Any, ModelSpec]],
    family: str,
    choices: list[tuple[str, str, str]],
    head: tuple[str, str, str],
    rest: str,
    slots: Slots,
    talk: Talk,
) -> None:
    model, spec = models[family]
    of_kind = {
        UnitKind.EMBEDDING: [(head[0] if spec.tied_embeddings else DISK, CPU, CPU)],
        UnitKind.REST: [(rest, rest, rest)],
        UnitKind.LAYER: list(choices),
        UnitKind.HEAD: [head],
    }
    placements = [placement(unit, of_kind[unit.kind].pop(0)) for unit in spec.units]
    plan = plan_with(spec, placements, Workload(context_tokens=32, prefill_chunk_tokens=talk.chunk), slots)
    accelerators = {device: labelled(device) for device in plan.gpus}
    with opened(spec, plan, accelerators.__getitem__) as (forward, cache, host):
        first, second = (some_tokens(count + talk.new, seed=count) for count in talk.prompts)
        second[: talk.common] = first[: min(talk.common, len(second))]
        for tokens in (first, second):
            expected = reference_logits(model, tokens)
            kept = cache.reuse(tokens[: len(tokens) - talk.new])
            prompt = tokens[kept : len(tokens) - talk.new]
            assert_close(forward.prefill(prompt), expected[kept + len(prompt) - 1], rtol=1e-4, atol=1e-5)
            for position in range(kept + len(prompt), len(tokens)):
                assert_close(forward.decode(tokens[position]), expected[position], rtol=1e-4, atol=1e-5)
        for memory in plan.memory:
            lines = {line.label: line.nbytes for line in memory.lines}
            planned_bytes = sum(lines.get(name, 0) for name in ("weights", "weight ring", "KV visit"))
            if memory.device == CPU:
                used_bytes = sum(m.nbytes for m in host.memories(unit.name for unit in spec.units))
            else:
                used_bytes, _ = accelerators[memory.device].used_bytes()
            assert used_bytes == planned_bytes
            homes = [m for kv in cache.layers for m in kv.home if m.device == label(memory.device)]
            assert sum(m.nbytes for m in homes) == lines.get("KV cache", 0)
