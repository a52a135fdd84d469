"""Every placement gives the logits of plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from placing import bytes_to_read, letters_for, opened, plan_of
from tiny_model import FAMILIES, reference_logits, save, some_tokens

from llmrun.checkpoint import read_spec
from llmrun.kernels.multiply import kernels
from llmrun.runtime.sequential import run_sequential

# embedding, rest, six layers, head
PLACEMENTS = {
    "all resident": "RRRRRRRRR",
    "all streamed": "dRddddddd",
    "half streamed": "dRRdRdRdR",
    "one block": "dRRRRdddd",
    "gpu": "R00000000",
    "ram to gpu": "R0aaaaaaa",
    "disk to gpu": "d0xxxxxxx",
    "gpu, ram and disk": "d00ax0ax0",
    "cpu and gpu": "dRRd0ax00",
    "two gpus": "d1000a1y1",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    folder = tmp_path_factory.mktemp("models")
    models = {name: family.build() for name, family in FAMILIES.items()}
    sharded = {"llama", "gemma3"}
    return {
        name: (model, save(model, folder / name, shard="20KB" if name in sharded else "1GB"))
        for name, model in models.items()
    }


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_transformers(saved: dict[str, tuple[Any, Path]], family: str, placement: str) -> None:
    model, folder = saved[family]
    spec = read_spec(folder)
    tokens = some_tokens(24)
    expected = reference_logits(model, tokens)
    with opened(spec, plan_of(spec, letters_for(spec, PLACEMENTS[placement]))) as (forward, cache, _):
        after_prompt = forward.prefill(tokens[:12])
        torch.testing.assert_close(after_prompt, expected[11], rtol=1e-4, atol=1e-5)
        for position in range(12, 24):
            logits = forward.decode(tokens[position])
            torch.testing.assert_close(logits, expected[position], rtol=1e-4, atol=1e-5)
        assert cache.tokens == tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("placement", ["all streamed", "gpu, ram and disk"])
def test_long_prompt_in_chunks(saved: dict[str, tuple[Any, Path]], family: str, placement: str) -> None:
    """Layer by layer: chunks of 16 over a prompt of 45, then over a continuation of 17."""
    model, folder = saved[family]
    spec = read_spec(folder)
    tokens = some_tokens(62, seed=5)
    expected = reference_logits(model, tokens)
    with opened(spec, plan_of(spec, letters_for(spec, PLACEMENTS[placement]))) as (forward, _, _):
        torch.testing.assert_close(forward.prefill(tokens[:45]), expected[44], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(forward.prefill(tokens[45:]), expected[61], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_sequential_oracle(saved: dict[str, tuple[Any, Path]], family: str) -> None:
    model, folder = saved[family]
    tokens = some_tokens(20)
    logits = run_sequential(read_spec(folder), tokens)
    torch.testing.assert_close(logits, reference_logits(model, tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("placement", ["gpu", "disk to gpu"])
def test_half_precision_on_a_gpu_is_bitwise_transformers(tmp_path: Path, dtype: torch.dtype, placement: str) -> None:
    """The same operations on the same bits: in bf16 and fp16 the logits of one pass are equal to the last bit."""
    spec = read_spec(save(FAMILIES["llama"].build(), tmp_path, dtype=dtype))
    tokens = some_tokens(12)
    expected = reference_logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype), tokens)[-1]
    with opened(spec, plan_of(spec, PLACEMENTS[placement])) as (forward, _, _):
        assert torch.equal(forward.prefill(tokens), expected.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("placement", ["all resident", "all streamed"])
def test_half_precision_on_the_cpu_is_fp32_on_the_same_weights(
    tmp_path: Path, dtype: torch.dtype, placement: str
) -> None:
    """Weights as they lie, states in fp32: only keys and values, in fp16, and a long prompt's products are rounded."""
    spec = read_spec(save(FAMILIES["llama-tied"].build(), tmp_path, dtype=dtype))
    tokens = some_tokens(14)
    exact, rounded = (
        reference_logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=kind), tokens).float()
        for kind in (torch.float32, dtype)
    )
    with opened(spec, plan_of(spec, letters_for(spec, PLACEMENTS[placement]))) as (forward, cache, _):
        few = [forward.prefill(tokens[:6]), *(forward.decode(token) for token in tokens[6:])]
        tolerance = 1e-3 if kernels(1) else 5e-3  # torch alone rounds the states as well
        torch.testing.assert_close(torch.stack(few), exact[5:], rtol=0, atol=tolerance)
        cache.rewind(0)
        many = forward.prefill(tokens)
    assert (many - exact[-1]).abs().max() < max(1e-3, (rounded[-1] - exact[-1]).abs().max())


def test_streamed_weights_are_read_once_a_token(saved: dict[str, tuple[Any, Path]]) -> None:
    _, folder = saved["llama"]
    spec = read_spec(folder)
    with opened(spec, plan_of(spec, PLACEMENTS["half streamed"])) as (forward, _, host):
        read_bytes = {unit.name: bytes_to_read(spec, host, unit.name) for unit in spec.units}
        streamed_bytes = sum(read_bytes[f"layer {i}"] for i in (1, 3, 5))
        first_pass_bytes = sum(read_bytes.values()) - read_bytes["embedding"]
        for token in some_tokens(20):
            forward.decode(token)
        ahead_bytes = 2 * max(read_bytes[f"layer {i}"] for i in (1, 3, 5))
        read_ahead = host.bytes_read - first_pass_bytes - 19 * streamed_bytes
        assert 0 <= read_ahead <= ahead_bytes


def test_prefix_is_reused(saved: dict[str, tuple[Any, Path]]) -> None:
    model, folder = saved["gemma3"]
    spec = read_spec(folder)
    tokens = some_tokens(24)
    other = [*tokens[:20], *some_tokens(6, seed=9)]
    with opened(spec, plan_of(spec, letters_for(spec, "RRRRRRRRR"))) as (forward, cache, _):
        forward.prefill(tokens)
        reused = cache.reuse(other)
        assert reused == 20
        logits = forward.prefill(other[reused:])
        torch.testing.assert_close(logits, reference_logits(model, other)[-1], rtol=1e-4, atol=1e-5)


def test_window_that_moved_on_starts_over(saved: dict[str, tuple[Any, Path]]) -> None:
    """A sliding layer forgets old tokens, so going back behind its window means to compute them again."""
    model, folder = saved["gemma3"]
    spec = read_spec(folder)
    tokens = some_tokens(60)
    other = [*tokens[:10], *some_tokens(5, seed=9)]
    with opened(spec, plan_of(spec, letters_for(spec, "RRRRRRRRR"))) as (forward, cache, _):
        for token in tokens:
            forward.decode(token)
        reused = cache.reuse(other)
        assert reused == 0
        logits = forward.prefill(other[reused:])
        torch.testing.assert_close(logits, reference_logits(model, other)[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("placement", ["all resident", "half streamed", "gpu, ram and disk"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_allocated_is_what_the_plan_counts(
    saved: dict[str, tuple[Any, Path]], family: str, placement: str
) -> None:
    _, folder = saved[family]
    spec = read_spec(folder)
    plan = plan_of(spec, letters_for(spec, PLACEMENTS[placement]))
    planned: dict[str, int] = {}
    for line in (line for memory in plan.memory if memory.device == "cpu" for line in memory.lines):
        planned[line.label] = line.nbytes
    kv_lines = [line.nbytes for memory in plan.memory for line in memory.lines if line.label == "KV cache"]
    with opened(spec, plan) as (forward, cache, host):
        forward.prefill(some_tokens(12))
        allocated = sum(memory.nbytes for memory in host.memories(unit.name for unit in spec.units))
        assert allocated == planned.get("weights", 0) + planned.get("weight ring", 0)
        assert sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) == sum(kv_lines)
