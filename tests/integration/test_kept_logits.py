"""Weights that are kept in RAM in fewer bits give what the same numbers give from a checkpoint that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from placing import letters_for, opened, plan_of
from tiny_model import FAMILIES, reference_logits, save, some_tokens

from llmrun.checkpoint import ModelSpec, read_spec
from llmrun.checkpoint.kept import kept_unit
from llmrun.checkpoint.layout import layout
from llmrun.checkpoint.recipe import recipe
from llmrun.checkpoint.spec import UnitKind
from llmrun.formats import weight_format
from llmrun.kernels.multiply import kernels
from llmrun.kernels.reference import dequantise
from llmrun.planner.plan import Plan
from llmrun.quantize.job import run
from llmrun.quantize.rounding import quantise
from llmrun.quantize.rounding_job import rounding, rounding_job
from llmrun.runtime.host import HostWeights
from llmrun.runtime.kept import KeptWeights
from llmrun.settings import Precision, Quality

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8}
TOKENS = some_tokens(40)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ModelSpec]]:
    folder, found = tmp_path_factory.mktemp("models"), {}
    for name in ("llama", "llama-tied"):
        model = FAMILIES[name].build(**WIDE)
        found[name] = (model, read_spec(save(model, folder / name, dtype=torch.bfloat16)))
        model.float()
    return found


def logits_of(spec: ModelSpec, plan: Plan) -> torch.Tensor:
    """After a prompt of one chunk, of three, after tokens, and after the first prompt once more."""
    with opened(spec, plan) as (forward, cache, _):
        found = [forward.prefill(TOKENS[:12]), *(forward.decode(token) for token in TOKENS[12:15])]
        cache.rewind(0)
        found.append(forward.prefill(TOKENS))
        cache.rewind(0)
        return torch.stack([*found, forward.prefill(TOKENS[:12])])


@pytest.mark.parametrize(("letter", "name"), [("8", "q8"), ("4", "q4")])
@pytest.mark.parametrize("quality", [Quality.HIGH, Quality.SMALL])
def test_all_kept_is_as_from_a_packed_checkpoint(
    saved: dict[str, tuple[Any, ModelSpec]], tmp_path: Path, letter: str, name: str, quality: Quality
) -> None:
    spec, precision = saved["llama"][1], Precision(quality, name)
    job = rounding_job(spec, recipe(name), tmp_path / "packed")
    run(job, rounding(spec, None, 1 << 20), lambda there, whole: lambda nbytes: None)
    packed = read_spec(job.target)
    expected = logits_of(packed, plan_of(packed, "dRRRRRR", precision=precision))
    found = logits_of(spec, plan_of(spec, f"dR{letter * 5}", precision=precision))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(found[0], found[-1])


@pytest.mark.parametrize("family", ["llama", "llama-tied"])
@pytest.mark.parametrize("letters", ["dRd8R48", "dR48484", "RR4d4dd"])
def test_some_kept(saved: dict[str, tuple[Any, ModelSpec]], family: str, letters: str) -> None:
    """The other layers, and the rows of the embedding, are as they are in the file."""
    model, spec = saved[family]
    plan = plan_of(spec, letters_for(spec, letters))
    expected = reference_logits(with_rounded(model, spec, plan), TOKENS[:15])
    torch.testing.assert_close(logits_of(spec, plan)[:4], expected[11:15], rtol=0, atol=2e-3 if kernels(1) else 2e-2)


def with_rounded(model: Any, spec: ModelSpec, plan: Plan) -> Any:
    """A copy with the numbers that the kept units have."""
    rounded = FAMILIES["llama"].build(**WIDE, attention_bias=spec.tied_embeddings)
    numbers = {**model.state_dict(), "lm_head.weight": model.get_output_embeddings().weight.detach()}
    for placement in plan.placements:
        unit = spec.unit(placement.unit)
        for before, after in zip(unit.tensors, kept_unit(unit, placement.kept).tensors, strict=True):
            if before.dtype != after.dtype:
                name = "lm_head.weight" if unit.kind is UnitKind.HEAD else before.name
                fmt = weight_format(after.dtype)
                numbers[name] = dequantise(fmt, quantise(fmt, numbers[name]), before.shape[1])
    rounded.load_state_dict(numbers)
    return rounded


@pytest.mark.skipif(kernels(1) is None, reason="torch rounds states in one way only")
def test_quality_decides_how_states_are_rounded(saved: dict[str, tuple[Any, ModelSpec]]) -> None:
    spec = saved["llama"][1]
    exact = logits_of(spec, plan_of(spec, "dRRRRRR"))

    def distance(quality: Quality) -> float:
        return float((logits_of(spec, plan_of(spec, "dR88888", precision=Precision(quality))) - exact).norm())

    assert 0 < distance(Quality.HIGH) < distance(Quality.BALANCED)


def test_what_is_allocated_is_what_the_account_says(saved: dict[str, tuple[Any, ModelSpec]]) -> None:
    spec = saved["llama"][1]
    plan = plan_of(spec, "dR8d4R4")
    host, kept = HostWeights(spec, plan), KeptWeights(spec, plan)
    resident = sum(memory.nbytes for memory in host._resident.values())
    host.close()
    (line,) = (line for line in plan.memory[0].lines if line.label == "weights")
    assert resident + kept.nbytes == line.nbytes
    assert kept.nbytes < sum(spec.unit(p.unit).nbytes for p in plan.placements if p.kept)
    assert "rounding" in {line.label for line in plan.memory[0].lines}


def test_a_kept_unit_is_read_once(saved: dict[str, tuple[Any, ModelSpec]]) -> None:
    spec = saved["llama"][1]
    with opened(spec, plan_of(spec, "dR44444")) as (forward, _, host):
        forward.prefill(TOKENS[:12])
        first_bytes = host.bytes_read
        for token in TOKENS[12:20]:
            forward.decode(token)
        units = [unit for unit in spec.units if unit.kind is not UnitKind.EMBEDDING]
        whole_bytes = sum(extent.nbytes for unit in units for extent in layout(unit).extents)
        assert whole_bytes - 4096 < host.bytes_read == first_bytes <= whole_bytes  # the file ends within a block
