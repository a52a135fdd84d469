"""Products of many tokens with weights of integer formats, against fp64 on the same rounded activations."""

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from llmrun.formats import FORMATS, WeightFormat
from llmrun.kernels.library import Library, find_library
from llmrun.kernels.linear import Kernels
from llmrun.kernels.reference import dequantise

BUILT = find_library()
pytestmark = pytest.mark.skipif(BUILT is None, reason="the kernels are not built")

INTEGER = [each for each in FORMATS.values() if not each.is_plain]
HALVES = {"Q6_K": (208,), "Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2)}
"""Where a block has its scales of 16 bits; the others have one, at its beginning."""
LEAST_TOKENS = 5
"""Fewer are multiplied by another kernel."""


@pytest.fixture(scope="module", params=["avx512", "avx2", "neon", "portable"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Each variant that this CPU has: a library picks once, so each has a copy of its own."""
    assert BUILT is not None
    path = tmp_path_factory.mktemp("kernels") / BUILT.path.name
    shutil.copy(BUILT.path, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMRUN_KERNELS", request.param)
        library = Library(path)
        if library.variant != request.param:
            pytest.skip(f"this CPU has no {request.param}")
    return library


@pytest.fixture(scope="module")
def kernels(library: Library) -> Iterator[Kernels]:
    made = Kernels(library, 2)
    yield made
    made.close()


def _weights(fmt: WeightFormat, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Any bytes, but for the scales, which are neither tiny nor infinite."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, columns // fmt.block_weights, fmt.block_bytes)
    data = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    for at in HALVES.get(fmt.name, (0,)):
        scales = torch.rand(*shape[:2], 1, generator=generator) * 0.02 + 0.001
        signs = torch.randint(0, 2, scales.shape, generator=generator) * 2 - 1
        data[..., at : at + 2] = (scales * signs).half().view(torch.uint8)
    return data.reshape(rows, -1)


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """What is left of activations as int8 in groups of 32. (A number over a tensor is not rounded once in torch.)"""
    groups = x.reshape(len(x), -1, 32)
    largest = groups.abs().amax(-1, keepdim=True)
    q = torch.round(groups * (torch.tensor(127.0) / largest))
    return (q.double() * (largest / 127).double()).reshape(x.shape)


def _error(kernels: Kernels, fmt: WeightFormat, tokens: int, weight: torch.Tensor, columns: int) -> float:
    """The largest error, of the largest output."""
    x = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(tokens))
    expected = _rounded(x) @ dequantise(fmt, weight, columns).double().T
    return float((kernels.linear(x, weight, fmt, columns) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("fmt", INTEGER, ids=lambda fmt: fmt.name)
@pytest.mark.parametrize(
    ("tokens", "rows", "columns"),
    [
        (5, 1, 256),  # one row
        (11, 17, 512),  # a row more than are unpacked at once
        (12, 31, 768),
        (33, 65, 2048),  # a row more than a part has
        (10, 130, 2304),  # more columns than are unpacked at once
        (16, 40, 4608),
    ],
)
def test_products_are_those_of_the_reference(
    kernels: Kernels, fmt: WeightFormat, tokens: int, rows: int, columns: int
) -> None:
    assert _error(kernels, fmt, tokens, _weights(fmt, rows, columns), columns) < 3e-6


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_K", "Q6_K"])  # one for each way of computing
def test_any_number_of_tokens_is_split_into_tiles(kernels: Kernels, name: str) -> None:
    fmt, x = FORMATS[name], torch.randn(70, 256, generator=torch.Generator().manual_seed(1))
    weight = _weights(fmt, 37, 256)
    expected = _rounded(x) @ dequantise(fmt, weight, 256).double().T
    for tokens in range(LEAST_TOKENS, 71):
        y = kernels.linear(x[:tokens], weight, fmt, 256)
        assert (y - expected[:tokens]).abs().max() < 3e-6 * expected.abs().max(), tokens


@pytest.mark.parametrize("fmt", [each for each in INTEGER if each.block_weights == 32], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("columns", [32, 96, 2080])
def test_groups_need_not_come_in_fours(kernels: Kernels, fmt: WeightFormat, columns: int) -> None:
    assert _error(kernels, fmt, 13, _weights(fmt, 20, columns), columns) < 3e-6


@pytest.mark.parametrize("fmt", INTEGER, ids=lambda fmt: fmt.name)
def test_weights_lie_at_any_byte_and_rows_apart(kernels: Kernels, fmt: WeightFormat) -> None:
    weight = _weights(fmt, 19, 512)
    around = torch.full((19, weight.shape[1] + 7), 0xFF, dtype=torch.uint8)
    around[:, 3:-4] = weight
    x = torch.randn(LEAST_TOKENS, 512)
    expected = kernels.linear(x, weight, fmt, 512)
    assert torch.equal(kernels.linear(x, around[:, 3:-4], fmt, 512), expected)


@pytest.mark.parametrize("fmt", INTEGER, ids=lambda fmt: fmt.name)
def test_the_number_of_threads_changes_no_bit(library: Library, fmt: WeightFormat) -> None:
    weight, x = _weights(fmt, 150, 512), torch.randn(20, 512)
    one, three = Kernels(library, 1), Kernels(library, 3)
    assert torch.equal(one.linear(x, weight, fmt, 512), three.linear(x, weight, fmt, 512))
    one.close()
    three.close()


@pytest.mark.parametrize("fmt", INTEGER, ids=lambda fmt: fmt.name)
def test_what_is_not_a_number_stays_in_its_row_and_its_token(kernels: Kernels, fmt: WeightFormat) -> None:
    weight, x = _weights(fmt, 20, 256), torch.randn(10, 256)
    sound = kernels.linear(x, weight, fmt, 256)
    at = HALVES.get(fmt.name, (0,))[0]
    weight[3, at : at + 2] = torch.tensor([float("nan")]).half().view(torch.uint8)
    x[4, 100] = float("inf")
    y = kernels.linear(x, weight, fmt, 256)
    assert y[:, 3].isnan().all()
    assert y[4].isnan().all()
    y[:, 3], y[4] = sound[:, 3], sound[4]
    assert torch.equal(y, sound)


GUARDED = """
import ctypes, mmap, sys
from pathlib import Path
from llmrun.formats import FORMATS
from llmrun.kernels.library import Library, Matrix

functions = Library(Path(sys.argv[1])).functions
pool = functions.llmrun_pool_new(1)
room = mmap.mmap(-1, 64 * mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(room))
end = start + 63 * mmap.PAGESIZE
if ctypes.CDLL(None).mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, 0):
    sys.exit("no guard")
rows, columns, tokens = 33, 256, 9
x, y = (ctypes.c_float * (tokens * columns))(), (ctypes.c_float * (tokens * rows))()
for fmt in FORMATS.values():
    row_bytes = fmt.row_bytes(columns)
    matrix = Matrix(fmt.number, rows, columns, end - rows * row_bytes, row_bytes)
    status = functions.llmrun_linear(pool, ctypes.byref(matrix), x, tokens, y)
    print(fmt.name, status, sum(y))
"""
"""Rows that end where memory does, read by a process of its own: it would not outlive a byte more."""


def test_nothing_is_read_behind_the_last_row() -> None:
    assert BUILT is not None
    done = subprocess.run([sys.executable, "-c", GUARDED, str(BUILT.path)], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"{name} 0 0.0" for name in FORMATS], done
