"""A GGUF file, computed with in place, against plain transformers with the numbers that gguf itself reads in it."""

from pathlib import Path

import gguf
import pytest
import torch
from gguf_factory import FAMILIES, gguf_tensors, packed, tiny_model, write_gguf

from llmrun.checkpoint import read_spec
from llmrun.hub import resolve
from llmrun.runtime.sequential import run_sequential

TOKENS = list(range(3, 40))


WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 8, "head_dim": 32}  # for blocks of 256
CASES = [(arch, kind) for arch in FAMILIES for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")]
CASES += [("llama", kind) for kind in ("Q4_K", "Q5_K", "Q6_K")]


@pytest.mark.parametrize(("arch", "kind"), CASES)
def test_logits_are_those_of_the_numbers_in_the_file(
    arch: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    number = gguf.GGMLQuantizationType[kind]
    more = {"attention_bias": True} if arch == "llama" else {}
    model = tiny_model(arch, **more, **(WIDE if kind.endswith("_K") else {}))
    write_gguf(tmp_path / "tiny.gguf", arch, model, kind=number)
    spec = read_spec(resolve(str(tmp_path / "tiny.gguf"), notify=lambda line: None).folder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:  # rounded row by row, so that the order of rows does not matter
                numbers = gguf.quants.dequantize(packed(parameter.numpy(), number), number)
                parameter.copy_(torch.from_numpy(numbers))
        expected = model(torch.tensor([TOKENS])).logits[0]
    found = run_sequential(spec, TOKENS)
    error = ((found - expected).norm() / expected.norm()).item()
    assert error < (1e-5 if kind == "F32" else 0.05), error  # activations become int8 or bf16 on the way


def test_the_order_of_rows_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound above is far below what pairs that are taken for halves would cost."""
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    model = tiny_model("llama")
    matrix = gguf_tensors("llama", model)["blk.0.attn_q.weight"]
    as_it_lies = model.state_dict() | {"model.layers.0.self_attn.q_proj.weight": torch.from_numpy(matrix)}
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0]
        model.load_state_dict(as_it_lies)
        wrong = model(torch.tensor([TOKENS])).logits[0]
    assert (wrong - expected).norm() / expected.norm() > 0.2
