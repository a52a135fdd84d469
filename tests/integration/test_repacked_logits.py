"""What others quantised to integers, repacked, against plain transformers with the numbers that the integers mean."""

from pathlib import Path

import pytest
import torch
from integer_checkpoints import Kind, write_integers
from tiny_model import reference_logits, some_tokens

from llmrun.cli.repack import runnable_spec
from llmrun.hub import Origin, resolve
from llmrun.runtime.sequential import run_sequential

KINDS = {
    "Q4_0": Kind("packed", group=32),
    "Q4_0, bf16 scales of rows": Kind("packed", group=0, scale_dtype=torch.bfloat16),
    "Q4_1": Kind("packed", symmetric=False),
    "Q8_0": Kind("packed", bits=8),
    "BF16": Kind("packed", act_order=True),
    "Q8_0 of bytes": Kind("bytes", bits=8, group=0, scale_dtype=torch.float32),
    "Q4_0 of gptq": Kind("gptq", group=32),
    "Q4_1 of gptq_v2": Kind("gptq_v2", group=0, symmetric=False),
    "Q8_0 of gptq": Kind("gptq", bits=8),
    "F16 of gptq": Kind("gptq", act_order=True),
    "F16 of gptq, 8 bits": Kind("gptq", bits=8, symmetric=False),
    "Q5_0 of mxfp4": Kind("mxfp4"),
    "Q4_1 of awq": Kind("awq", symmetric=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_integers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tiny"
    model = write_integers(folder, KINDS[kind], dtype=torch.bfloat16 if kind == "BF16" else torch.float16)
    told: list[str] = []
    spec = runnable_spec(resolve(str(folder), notify=told.append), told.append)
    layer = {tensor.dtype for tensor in spec.unit("layer 1").tensors if len(tensor.shape) == 2}
    assert layer == {kind.partition(" ")[0].rstrip(",")}
    assert "is repacked once" in told[0]
    tokens = some_tokens(20)
    expected = reference_logits(model, tokens)
    error = ((run_sequential(spec, tokens) - expected).norm() / expected.norm()).item()
    assert error < (0.02 if kind == "BF16" else 0.01), error  # a prompt meets bf16 weights in bf16
    again = resolve(str(folder), notify=told.append)
    assert again.origin is Origin.REPACKED
    n_lines = len(told)
    assert runnable_spec(again, told.append) == spec
    assert len(told) == n_lines
