"""A model's own norms by the kernels: which they are, and that they give the same numbers."""

from pathlib import Path

import pytest
import torch
from packed_weights import VARIANTS, library_of
from torch import nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from llmrun.kernels.linear import Kernels
from llmrun.kernels.norms import RmsNorm, use_own_norms


class Gated(LlamaRMSNorm):
    """A norm that may be given more than what it norms."""

    def forward(self, x: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x) if gate is None else super().forward(x) * gate


class Doubled(LlamaRMSNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path: Path) -> Kernels:
    return Kernels(library_of(request.param, tmp_path), 2)


@pytest.mark.parametrize("columns", [1, 31, 64, 577, 4096])
@pytest.mark.parametrize("tokens", [1, 3, 20])
def test_a_norm_is_that_of_the_formula_for_any_number_of_tokens(variant, tokens, columns):
    torch.manual_seed(1)
    x, weight = torch.randn(tokens, columns) * 3, torch.randn(columns)
    exact = weight.double() * x.double() * (x.double().square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    found = variant.rms_norm(x, weight, 1e-5)
    torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=1e-6)
    alone = torch.cat([variant.rms_norm(row, weight, 1e-5) for row in x[:, None]])
    assert torch.equal(found, alone)


def test_nothing_not_finite_is_hidden(variant):
    x = torch.tensor([[1.0, float("nan")], [float("inf"), 1.0], [0.0, 0.0]])
    found = variant.rms_norm(x, torch.ones(2), 1e-5)
    assert found.isnan().tolist() == [[True, True], [True, False], [False, False]]
    assert found[2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.ones(1, 8).double(), torch.ones(8)),
        (torch.ones(1, 8), torch.ones(8).bfloat16()),
        (torch.ones(1, 8), torch.ones(9)),
        (torch.ones(8, 2).T, torch.ones(8)),
    ],
)
def test_what_does_not_fit_is_refused(variant, x, weight):
    with pytest.raises(ValueError, match="no norm of"):
        variant.rms_norm(x, weight, 1e-5)


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen3RMSNorm])
def test_a_plain_norm_is_computed_by_the_kernels(kind):
    model = nn.Sequential(kind(96, eps=1e-3))
    reference = model[0]
    model.to("meta")
    use_own_norms(model)
    assert isinstance(model[0], RmsNorm)
    assert model[0].variance_epsilon == 1e-3
    weight = torch.rand(96)
    for norm in (model[0], reference):
        norm.load_state_dict({"weight": weight}, assign=True)
    x = torch.randn(2, 5, 96).transpose(0, 1)
    torch.testing.assert_close(model(x), reference(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "module",
    [Gemma2RMSNorm(96), Gated(96), Doubled(96), nn.LayerNorm(96), nn.LayerNorm(96, bias=False), nn.Linear(4, 4)],
    ids=lambda module: type(module).__name__,
)
def test_anything_else_stays_what_it_is(module):
    model = nn.Sequential(module).to("meta")
    use_own_norms(model)
    assert model[0] is module
