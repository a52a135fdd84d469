"""Weights as the checkpoint has them, seen as a matrix of floats: products, rows and everything else."""

import pytest
import torch
from torch.nn.functional import embedding, linear

from llmrun.formats import FORMATS, packed_bytes
from llmrun.kernels.attend import attend_one
from llmrun.kernels.multiply import FEW_TOKENS, kernels, multiply, numbers
from llmrun.kernels.packed import PackedWeight, as_scales, as_weight, in_halves, plain_weight
from llmrun.kernels.reference import PLAIN_DTYPES
from llmrun.planner import memory
from llmrun.settings import DEFAULT_DRAFT_TOKENS

ROWS, COLUMNS = 24, 256


def made(name: str, rows: int = ROWS, skew: int = 0) -> torch.Tensor:
    """Bytes of a matrix whose scales are small, ``skew`` bytes away from any alignment."""
    torch.manual_seed(3)
    memory = torch.randint(0, 48, (packed_bytes((rows, COLUMNS), name) + skew,), dtype=torch.uint8)
    return memory[skew:]


def weight(name: str, skew: int = 0, **options: int) -> torch.Tensor:
    return as_weight(made(name, skew=skew), name, (ROWS, COLUMNS), torch.float32, **options)


@pytest.mark.parametrize("skew", [0, 1])
@pytest.mark.parametrize("tokens", [1, 3, 20])
@pytest.mark.parametrize("name", FORMATS)
def test_a_product_is_that_of_its_numbers(name, tokens, skew):
    matrix, states, bias = weight(name, skew), torch.randn(2, tokens, COLUMNS), torch.randn(ROWS)
    floats = numbers(made(name, skew=skew).view(ROWS, -1), FORMATS[name], COLUMNS)
    exact = states.double() @ floats.double().T + bias.double()
    scale = states.double().abs() @ floats.double().abs().T
    unbuilt = kernels(torch.get_num_threads()) is None
    rounded = 0.01 if name == "BF16" and unbuilt and 2 * tokens <= FEW_TOKENS else 1e-4  # by torch: states in bf16
    assert ((linear(states, matrix, bias) - exact).abs() <= rounded * scale + 1e-5).all()


@pytest.mark.parametrize("name", ["BF16", "Q8_0", "Q4_K"])
def test_rows_and_any_other_use_have_the_same_numbers(name):
    matrix = weight(name)
    floats = numbers(made(name).view(ROWS, -1), FORMATS[name], COLUMNS)
    ids = torch.tensor([[3, 0], [3, 23]])
    assert torch.equal(embedding(ids, matrix), floats[ids])
    assert torch.equal(matrix + 0, floats)
    assert torch.equal(matrix.T @ torch.eye(ROWS), floats.T)
    assert (matrix.shape, matrix.dtype) == ((ROWS, COLUMNS), torch.float32)


def test_it_may_be_the_parameter_of_a_module():
    module = torch.nn.Linear(COLUMNS, ROWS, bias=False, device="meta").requires_grad_(False)
    module.load_state_dict({"weight": weight("Q8_0")}, assign=True)
    assert isinstance(module.weight, PackedWeight)
    assert torch.equal(module(torch.ones(1, COLUMNS)), linear(torch.ones(1, COLUMNS), weight("Q8_0")))


@pytest.mark.parametrize("tokens", [1, 9, 40])
@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_eight_bit_floats_have_their_scales_wherever_they_are_used(kind, tokens):
    data = made("F8_E4M3", rows=300, skew=1)
    there = torch.rand(3, 4).to(PLAIN_DTYPES[kind])
    scales = as_scales(there.view(torch.uint8).flatten(), kind, (300, COLUMNS), 128, 64)
    matrix = as_weight(data, "F8_E4M3", (300, COLUMNS), torch.float32, scales=scales)
    floats = data.view(300, -1).view(torch.float8_e4m3fn).float()
    floats *= torch.kron(there.float(), torch.ones(128, 64))[:300]
    states = torch.randn(tokens, COLUMNS)
    torch.testing.assert_close(linear(states, matrix), states @ floats.T)
    assert torch.equal(matrix.detach() + 0, floats)
    assert torch.equal(
        embedding(torch.tensor([[0, 299], [130, 130]]), matrix), floats[[0, 299, 130, 130]].view(2, 2, -1)
    )
    on_gpu = multiply(states.bfloat16(), matrix.packed, matrix.fmt, COLUMNS, scales=scales)
    torch.testing.assert_close(on_gpu, states.bfloat16() @ floats.bfloat16().T)
    rounded = multiply(states, matrix.packed, matrix.fmt, COLUMNS, scales=scales, fine=False)
    torch.testing.assert_close(rounded, states @ floats.T, rtol=0.02, atol=0.2)


def test_rows_in_pairs_give_a_product_in_halves():
    plain, paired = weight("Q8_0"), weight("Q8_0", paired_head_dim=8)
    states = torch.randn(1, COLUMNS)
    straight, halves = linear(states, plain)[0], linear(states, paired)[0]
    assert halves[:8].tolist() == straight[[0, 2, 4, 6, 1, 3, 5, 7]].tolist()
    assert torch.equal(halves, in_halves(straight, 8))
    assert torch.equal(paired + 0, in_halves((plain + 0).T, 8).T)


def test_a_vector_or_a_matrix_of_the_dtype_stays_what_it_is():
    vector = as_weight(torch.arange(8).bfloat16().view(torch.uint8), "BF16", (8,), torch.float32)
    assert type(vector) is torch.Tensor
    assert vector.tolist() == list(range(8))
    matrix = torch.randn(4, 6)
    assert type(plain_weight(matrix, torch.float32)) is torch.Tensor
    assert torch.equal(plain_weight(matrix.half(), torch.float32) + 0, matrix.half().float())


def test_products_on_a_gpu_keep_the_dtype_of_the_states():
    states = torch.randn(3, COLUMNS).bfloat16()
    floats = numbers(made("Q4_0").view(ROWS, -1), FORMATS["Q4_0"], COLUMNS)
    product = multiply(states, made("Q4_0").view(ROWS, -1), FORMATS["Q4_0"], COLUMNS)
    assert product.dtype == torch.bfloat16
    torch.testing.assert_close(product, states @ floats.bfloat16().T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4)])
def test_one_token_attends_as_torch_has_it(dtype, heads, kv_heads):
    torch.manual_seed(5)
    query = torch.randn(1, heads, 1, 16)
    cache = torch.randn(2, 1, kv_heads, 90, 16).to(dtype)
    keys, values = cache[:, :, :, :77]
    exact = torch.nn.functional.scaled_dot_product_attention(
        query, keys.float(), values.float(), scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(attend_one(query, keys, values, 0.3), exact.transpose(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 1e-6), (torch.bfloat16, 1e-2)])
def test_many_tokens_are_rounded_for_bf16_alone(dtype, most):
    states, packed = torch.randn(FEW_TOKENS + 1, COLUMNS), torch.randn(ROWS, COLUMNS).to(dtype)
    exact = states.double() @ packed.double().T
    name = "F16" if dtype == torch.float16 else "BF16"
    product = multiply(states, packed.view(torch.uint8), FORMATS[name], COLUMNS)
    error = (product - exact).norm() / exact.norm()
    assert most / 100 < error < most


def test_a_draft_is_computed_with_as_one_token_is():
    assert DEFAULT_DRAFT_TOKENS + 1 == FEW_TOKENS == memory.FEW_TOKENS


def test_threads_share_their_kernels():
    assert kernels(1) is kernels(1)
