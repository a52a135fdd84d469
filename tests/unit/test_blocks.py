"""MLPs and attention in one call of the kernels: the numbers of the formulas, for every variant and any few tokens."""

from pathlib import Path

import pytest
import torch
from packed_weights import VARIANTS, library_of, packed_weights
from torch.nn.functional import rms_norm, silu

from llmrun.formats import FORMATS
from llmrun.kernels.blocks import Heads, Room, attend, gated_mlp
from llmrun.kernels.linear import Kernels, Product
from llmrun.kernels.packed import in_halves
from llmrun.kernels.reference import dequantise

EPSILON, SCALE = 1e-4, 0.2


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path: Path) -> Kernels:
    return Kernels(library_of(request.param, tmp_path), 2)


class Matrix:
    """Random weights in a format, their product by the kernels, and what they are."""

    def __init__(self, own: Kernels, fmt: str, rows: int, columns: int, seed: int, fine: bool = True) -> None:
        if fmt == "F32":
            torch.manual_seed(seed)
            packed = (torch.randn(rows, columns) / columns**0.5).view(torch.uint8)
        else:
            packed = packed_weights(FORMATS[fmt], rows, columns, seed)
        self.product: Product = own.product(packed, FORMATS[fmt], columns, fine=fine)
        self.numbers = dequantise(FORMATS[fmt], packed, columns).double()


def turns(tokens: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.rand(1, tokens, dim) * 6
    return angles.cos(), angles.sin()


@pytest.mark.parametrize(("fmt", "inner"), [("F32", 37), ("Q4_0", 96), ("Q8_0", 352)])
@pytest.mark.parametrize("tokens", [1, 3, 16])
def test_a_gated_mlp_is_that_of_the_formula(variant, fmt, inner, tokens):
    gate, up = (Matrix(variant, fmt, inner, 64, seed) for seed in (1, 2))
    down = Matrix(variant, fmt, 40, inner, 3)
    x = torch.randn(1, tokens, 64) * torch.logspace(-2, 1, tokens)[:, None]
    found = gated_mlp(variant, x, gate.product, up.product, down.product)
    exact = (silu(x.double() @ gate.numbers.T) * (x.double() @ up.numbers.T)) @ down.numbers.T
    torch.testing.assert_close(found.double(), exact, rtol=2e-4, atol=2e-4 * exact.abs().max().item())
    alone = [gated_mlp(variant, one, gate.product, up.product, down.product) for one in x.split(1, dim=1)]
    torch.testing.assert_close(found, torch.cat(alone, 1), rtol=1e-4, atol=1e-5 * exact.abs().max().item())


def attention_by_formula(x, matrices, biases, norms, turned, past_keys, past_values, dim):
    heads = []
    for matrix, bias, norm in zip(matrices[:3], biases, (*norms, None), strict=True):
        states = x.double() @ matrix.T
        states = (states if bias is None else states + bias.double()).view(x.shape[1], -1, dim).transpose(0, 1)
        heads.append(states if norm is None else rms_norm(states, (dim,), norm.double(), EPSILON))
    cos, sin = (each[0].double() for each in turned)
    for i in (0, 1):
        first, second = heads[i].chunk(2, -1)
        heads[i] = heads[i] * cos + torch.cat([-second, first], -1) * sin
    query, key, value = heads
    key, value = torch.cat([past_keys.double(), key], 1), torch.cat([past_values.double(), value], 1)
    group, new, seen = len(query) // len(key), query.shape[1], key.shape[1]
    scores = query @ key.repeat_interleave(group, 0).transpose(1, 2) * SCALE
    scores = scores.masked_fill(torch.ones(new, seen, dtype=torch.bool).triu(seen - new + 1), -torch.inf)
    attended = scores.softmax(-1) @ value.repeat_interleave(group, 0)
    return attended.transpose(0, 1).flatten(1) @ matrices[3].T, key, value


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(("tokens", "past"), [(1, 0), (1, 70), (4, 9), (16, 600)])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 32), (6, 2, 10), (8, 1, 64)])
def test_attention_is_that_of_the_formula_and_fills_its_room(variant, dtype, tokens, past, heads, kv_heads, dim):
    rows = heads * dim, kv_heads * dim, kv_heads * dim
    matrices = [Matrix(variant, "F32", count, 48, seed) for seed, count in enumerate(rows)]
    matrices.append(Matrix(variant, "F32", 48, heads * dim, 9))
    biases = tuple(torch.randn(count) for count in rows)
    norms = torch.rand(dim) + 0.5, torch.rand(dim) + 0.5
    keys, values = torch.randn(2, 1, kv_heads, past + tokens + 3, dim).to(dtype)
    after = keys[:, :, past + tokens :].clone()
    before = keys[0, :, :past].clone(), values[0, :, :past].clone()
    x, turned = torch.randn(1, tokens, 48), turns(tokens, dim)
    parts = Heads(*(m.product for m in matrices), dim, SCALE, biases, norms, EPSILON)
    found = attend(variant, x, parts, turned, Room(keys, values, past))
    numbers = [matrix.numbers for matrix in matrices]
    exact, key, value = attention_by_formula(x, numbers, biases, norms, turned, *before, dim)
    near = {"rtol": 2e-3, "atol": 2e-3} if dtype == torch.float16 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found[0].double(), exact, **near)
    torch.testing.assert_close(keys[0, :, : past + tokens].double(), key, **near)
    torch.testing.assert_close(values[0, :, : past + tokens].double(), value, **near)
    assert torch.equal(keys[:, :, past + tokens :], after)


def test_keys_and_values_become_halves_as_torch_makes_them(variant):
    """Rounded to the nearest, with what is too large, too small, or no number."""
    dim, special = 16, [0.0, 1e-8, 6e-8, 5.9e-5, 1.0, 1 + 2**-11, 1 + 3 * 2**-11, 65504.0, 65519.0, 65520.0, 1e9]
    numbers = torch.tensor([*special, -1e-7, -2.5, torch.inf, -torch.inf, torch.nan])
    parts = [Matrix(variant, "F32", dim, dim, seed).product for seed in range(4)]
    keys, values = torch.zeros(2, 1, 1, 1, dim, dtype=torch.float16)
    heads = Heads(*parts, dim, SCALE, biases=(None, None, numbers))
    attend(variant, torch.zeros(1, 1, dim), heads, turns(1, dim), Room(keys, values, 0))
    assert torch.equal(values.flatten().view(torch.int16)[:-1], numbers.half().view(torch.int16)[:-1])
    assert values.flatten()[-1].isnan()


def test_rows_in_pairs_become_halves(variant):
    dim, x = 16, torch.randn(1, 3, 32)
    query, key, value, out = (Matrix(variant, "Q8_0", 32, 32, seed) for seed in range(4))
    turned, zeros = turns(3, dim), torch.zeros(2, 0, dim)
    keys, values = torch.zeros(2, 1, 2, 3, dim)
    products = [each.product for each in (query, key, value, out)]
    biases = torch.randn(32), torch.randn(32), None
    heads = Heads(*products, dim, SCALE, biases, paired=(True, True))
    found = attend(variant, x, heads, turned, Room(keys, values, 0))
    numbers = [in_halves(each.numbers.T, dim).T for each in (query, key)] + [value.numbers, out.numbers]
    exact, _, _ = attention_by_formula(x, numbers, biases, (None, None), turned, zeros, zeros, dim)
    torch.testing.assert_close(found[0].double(), exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item())


def test_what_does_not_fit_is_refused(variant):
    wide, narrow = (Matrix(variant, "F32", 16, columns, 0).product for columns in (16, 8))
    x, room = torch.randn(1, 2, 16), Room(*torch.zeros(2, 1, 2, 4, 8), 0)
    with pytest.raises(ValueError, match="activations must be"):
        gated_mlp(variant, x.double(), wide, wide, wide)
    with pytest.raises(ValueError, match="refuse"):
        gated_mlp(variant, x, wide, narrow, wide)
    heads = Heads(wide, wide, wide, wide, 8, SCALE)
    assert attend(variant, x, heads, turns(2, 8), room).shape == (1, 2, 16)
    for other, there, turned, message in (
        (heads, Room(room.keys, room.values, 3), turns(2, 8), "no room for 2 tokens after 3 of 4"),
        (heads, Room(room.keys.bfloat16(), room.values.bfloat16(), 0), turns(2, 8), "no keys or values"),
        (heads, room, turns(3, 8), "turns must be"),
        (Heads(wide, wide, wide, wide, 8, SCALE, biases=(torch.ones(3), None, None)), room, turns(2, 8), "a bias"),
        (Heads(wide, wide, narrow, wide, 8, SCALE), room, turns(2, 8), "refuse"),
    ):
        with pytest.raises(ValueError, match=message):
            attend(variant, x, other, turned, there)
