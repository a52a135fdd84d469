"""The kernels that are built for this machine: every variant that its CPU runs, against sums in double."""

import os
import platform
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llmrun.formats import FORMATS, WeightFormat
from llmrun.kernels.library import Library, find_library
from llmrun.kernels.linear import Kernels

BUILT = find_library()
pytestmark = pytest.mark.skipif(BUILT is None, reason="the kernels are not built")
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
VARIANTS = ["neon", "portable"] if platform.machine() in ("aarch64", "arm64") else ["avx512", "avx2", "portable"]


@pytest.fixture(scope="module", params=VARIANTS)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernels]:
    """A variant is picked once for a library, hence a copy for each."""
    copy = shutil.copy(BUILT.path, tmp_path_factory.mktemp(request.param))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "LLMRUN_KERNELS", request.param)
        library = Library(Path(copy))
        if library.variant != request.param:
            pytest.skip(f"this CPU has no {request.param}")
    kernels = Kernels(library, 3)
    yield kernels
    kernels.close()


def random_bytes(fmt: WeightFormat, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Any bits, but with no infinity among the scales of a block: the top bits of a half's exponent are 0."""
    generator = torch.Generator().manual_seed(seed)
    packed = torch.randint(0, 256, (rows, fmt.row_bytes(columns)), dtype=torch.uint8, generator=generator)
    blocks = packed.view(rows, -1, fmt.block_bytes)
    if fmt.name == "Q6_K":
        blocks[..., 209] &= 0x9F
    elif not fmt.is_plain:
        blocks[..., [1, 3]] &= 0x9F
    return packed


def plain_weights(name: str, rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    return torch.randn(rows, columns, generator=generator).to(PLAIN[name])


def as_bytes(weights: torch.Tensor) -> torch.Tensor:
    return weights.view(torch.uint8).view(len(weights), -1)


def dequantised(kernels: Kernels, packed: torch.Tensor, fmt: WeightFormat, columns: int) -> torch.Tensor:
    out = torch.empty(len(packed), columns)
    for row, to in zip(packed, out, strict=True):
        assert kernels._functions.llmrun_dequantise(fmt.number, row.data_ptr(), columns, to.data_ptr()) == 0
    return out


def assert_near(product: torch.Tensor, weights: torch.Tensor, x: torch.Tensor) -> None:
    expected = x.double() @ weights.double().T
    greatest = x.double().abs() @ weights.double().abs().T
    assert ((product - expected).abs() <= 1e-6 * greatest).all()


@pytest.mark.parametrize("name", PLAIN)
def test_plain_weights_of_any_shape(kernels: Kernels, name: str) -> None:
    for columns in (*range(1, 70), 200):
        rows, tokens = columns % 11 + 1, columns % 13 + 1
        weights = plain_weights(name, rows, columns)
        x = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(columns))
        assert_near(kernels.linear(x, as_bytes(weights), FORMATS[name], columns), weights, x)


@pytest.mark.parametrize("name", PLAIN)
def test_a_token_s_product_depends_neither_on_the_others_nor_on_the_threads(kernels: Kernels, name: str) -> None:
    weights = as_bytes(plain_weights(name, 301, 515))
    x = torch.randn(11, 515, generator=torch.Generator().manual_seed(1))
    together = kernels.linear(x, weights, FORMATS[name], 515)
    for count in (1, 2, 3, 5, 8):
        assert torch.equal(kernels.linear(x[:count], weights, FORMATS[name], 515), together[:count])
    alone = Kernels(BUILT, 1)
    if alone.variant == kernels.variant:
        assert torch.equal(alone.linear(x, weights, FORMATS[name], 515), together)
    alone.close()


@pytest.mark.parametrize("name", [name for name, fmt in FORMATS.items() if not fmt.is_plain])
@pytest.mark.parametrize("tokens", [1, 3, 8, 9, 21])
def test_blocks_of_integers(kernels: Kernels, name: str, tokens: int) -> None:
    fmt, columns = FORMATS[name], 3 * FORMATS[name].block_weights
    assert kernels.supports(name)
    packed = random_bytes(fmt, 37, columns)
    weights = dequantised(kernels, packed, fmt, columns)
    x = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(2))
    steps = x.unflatten(1, (-1, 32)).abs().amax(2, keepdim=True).expand(-1, -1, 32).flatten(1) / 127
    allowed = 0.51 * steps @ weights.abs().T + 1e-4 * x.abs() @ weights.abs().T
    error = kernels.linear(x, packed, fmt, columns) - x @ weights.T
    assert (error.abs() <= allowed).all()
    assert error.abs().max() > 0, "x is rounded to int8: no error is none of ours"


@pytest.mark.parametrize("name", ["BF16", "F32", "Q8_0", "Q6_K"])
def test_rows_at_any_address_and_apart(kernels: Kernels, name: str) -> None:
    fmt, columns = FORMATS[name], 512
    packed = random_bytes(fmt, 9, columns) & 0x3F
    x = torch.randn(2, columns, generator=torch.Generator().manual_seed(3))
    expected = kernels.linear(x, packed, fmt, columns)
    for shift in (1, 2, 3):
        apart = torch.zeros(9, packed.shape[1] + 7, dtype=torch.uint8)
        apart[:, shift : shift + packed.shape[1]] = packed
        moved = apart[:, shift : shift + packed.shape[1]]
        assert torch.equal(kernels.linear(x, moved, fmt, columns), expected)


def test_infinite_and_missing_weights_go_through(kernels: Kernels) -> None:
    weights = torch.ones(8, 64, dtype=torch.bfloat16)
    weights[3, 5], weights[4, 6] = torch.inf, torch.nan
    product = kernels.linear(torch.ones(1, 64), as_bytes(weights), FORMATS["BF16"], 64)[0]
    assert product[3] == torch.inf
    assert product[4].isnan()
    assert product[0] == 64


def attention_in_double(query, keys, values, scale, window, softcap):
    heads, queries, _ = query.shape
    keys, values = (each.double().repeat_interleave(heads // len(each), 0) for each in (keys, values))
    scores = query.double() @ keys.transpose(1, 2) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    cached, new = torch.arange(keys.shape[1]), torch.arange(keys.shape[1] - queries, keys.shape[1])[:, None]
    unseen = (cached > new) | ((cached <= new - window) if window else False)
    return scores.masked_fill(unseen, -torch.inf).softmax(-1) @ values


@pytest.mark.parametrize("dtype", PLAIN.values(), ids=str)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "queries", "tokens", "head_dim", "window", "softcap"),
    [
        (4, 4, 1, 1, 64, 0, 0.0),
        (8, 2, 1, 700, 64, 0, 0.0),
        (8, 2, 3, 1300, 80, 0, 0.0),
        (4, 1, 8, 513, 128, 100, 0.0),
        (6, 3, 5, 77, 33, 0, 30.0),
        (2, 2, 20, 600, 16, 7, 0.0),
        (5, 1, 1, 1100, 256, 512, 50.0),
        (4, 4, 17, 17, 64, 0, 0.0),
        (6, 2, 70, 333, 80, 0, 0.0),
        (3, 1, 150, 700, 33, 0, 0.0),
        (8, 2, 40, 200, 128, 50, 30.0),
        (2, 1, 64, 128, 4, 9, 0.0),
    ],
)
def test_attention(kernels, dtype, heads, kv_heads, queries, tokens, head_dim, window, softcap) -> None:
    generator = torch.Generator().manual_seed(4)
    cache = torch.randn(2, kv_heads, tokens + 5, head_dim, generator=generator).to(dtype)
    keys, values = cache[:, :, :tokens]
    query = 2 * torch.randn(heads, queries, head_dim, generator=generator)
    expected = attention_in_double(query, keys, values, head_dim**-0.5, window, softcap)
    found = kernels.attention(query, keys, values, head_dim**-0.5, window=window, softcap=softcap)
    assert (found - expected).abs().max() < 1e-5


def test_attention_to_scores_far_apart(kernels: Kernels) -> None:
    query = torch.tensor([100.0, 0, 0, 0]).view(1, 1, 4)
    keys = torch.zeros(1, 900, 4)
    keys[0, 3, 0], keys[0, 700, 0] = 50, 50  # 5,000 above the others, in two stretches
    values = torch.arange(900.0).view(1, 900, 1).expand(1, 900, 4).contiguous()
    assert kernels.attention(query, keys, values, 1.0).tolist() == [[[351.5] * 4]]


@pytest.mark.parametrize("tokens", [3, 40])
def test_attention_takes_heads_and_tokens_in_any_order(kernels: Kernels, tokens: int) -> None:
    query, cache = torch.randn(tokens, 4, 2 * 24).transpose(0, 1), torch.randn(2, 2, 90, 24).half()
    expected = attention_in_double(query[..., :24].contiguous(), *cache, 0.3, 0, 0.0)
    found = kernels.attention(query[..., :24], *cache, 0.3)
    assert found.transpose(0, 1).is_contiguous()
    assert (found - expected).abs().max() < 1e-5


def test_a_token_of_a_prompt_attends_alike_in_any_chunk(kernels: Kernels) -> None:
    query, (keys, values) = torch.randn(4, 300, 64), torch.randn(2, 2, 300, 64).half()
    whole = kernels.attention(query, keys, values, 0.2)
    chunks = [
        kernels.attention(query[:, begin:end], keys[:, :end], values[:, :end], 0.2)
        for begin, end in ((0, 170), (170, 300))
    ]
    assert torch.equal(whole, torch.cat(chunks, 1))


def test_attention_to_what_is_no_number_gives_none(kernels: Kernels) -> None:
    query, (keys, values) = torch.randn(1, 40, 16), torch.randn(2, 1, 100, 16)
    keys[0, 80] = torch.nan
    unknown = kernels.attention(query, keys, values, 0.2).isnan().all(-1)[0]
    assert unknown.tolist() == [False] * 20 + [True] * 20


def test_two_python_threads_share_one_pool(kernels: Kernels) -> None:
    weights = plain_weights("BF16", 64, 256)
    wrong = []

    def multiply(seed: int) -> None:
        x = torch.randn(2, 256, generator=torch.Generator().manual_seed(seed))
        expected = kernels.linear(x, as_bytes(weights), FORMATS["BF16"], 256)
        wrong.extend(
            seed
            for _ in range(200)
            if not torch.equal(kernels.linear(x, as_bytes(weights), FORMATS["BF16"], 256), expected)
        )
        assert_near(expected, weights, x)

    threads = [threading.Thread(target=multiply, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


BF16_ROWS = as_bytes(plain_weights("BF16", 4, 8))


@pytest.mark.parametrize(
    ("x", "weight", "columns"),
    [
        (torch.ones(1, 8, dtype=torch.bfloat16), BF16_ROWS, 8),
        (torch.ones(1, 9), BF16_ROWS, 8),
        (torch.ones(8, 2).T, BF16_ROWS, 8),
        (torch.ones(1, 8), BF16_ROWS[:, :-1], 8),
        (torch.ones(1, 8), BF16_ROWS.int(), 8),
        (torch.ones(1, 8), torch.zeros(16, 4, dtype=torch.uint8).T, 8),
    ],
    ids=["dtype", "columns", "transposed", "short rows", "not bytes", "columns apart"],
)
def test_what_does_not_fit_is_refused(kernels: Kernels, x: torch.Tensor, weight: torch.Tensor, columns: int) -> None:
    with pytest.raises(ValueError, match=r"must be|contiguous"):
        kernels.linear(x, weight, FORMATS["BF16"], columns)


def test_attention_that_does_not_fit_is_refused(kernels: Kernels) -> None:
    query, keys = torch.zeros(4, 1, 8), torch.zeros(2, 5, 8)
    for wrong in (torch.zeros(3, 5, 8), torch.zeros(2, 5, 4), keys.double(), torch.zeros(2, 8, 5).transpose(1, 2)):
        with pytest.raises(ValueError, match=r"queries|attention|contiguous"):
            kernels.attention(query, wrong, wrong, 1.0)
    with pytest.raises(ValueError, match="queries"):
        kernels.attention(torch.zeros(4, 6, 8), keys, keys, 1.0)


def test_no_rows_and_no_tokens_are_nothing(kernels: Kernels) -> None:
    assert kernels.linear(torch.zeros(0, 8), BF16_ROWS, FORMATS["BF16"], 8).shape == (0, 4)
    assert kernels.linear(torch.zeros(2, 8), BF16_ROWS[:0], FORMATS["BF16"], 8).shape == (2, 0)


def test_after_close_it_refuses() -> None:
    kernels = Kernels(BUILT, 2)
    assert kernels.threads == 2
    kernels.close()
    kernels.close()
    with pytest.raises(ValueError, match="refuse"):
        kernels.linear(torch.zeros(1, 8), BF16_ROWS, FORMATS["BF16"], 8)


def test_unknown_formats_are_not_supported(kernels: Kernels) -> None:
    assert not kernels.supports("IQ2_XXS")
    assert kernels._functions.llmrun_supports(99) == 0
    assert kernels._functions.llmrun_dequantise(99, 0, 32, 0) == -2
