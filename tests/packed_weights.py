"""Rows of packed weights, activations that int8 holds exactly, and the kernels of one instruction set."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from llmrun.formats import FORMATS, WeightFormat
from llmrun.kernels.library import Library, find_library

INTEGER_FORMATS = [each for each in FORMATS.values() if not each.is_plain]
VARIANTS = ["avx512", "avx2", "neon", "portable"]
GROUP = 32
"""Activations are rounded to int8 in groups of so many."""


def library_of(variant: str, folder: Path) -> Library:
    """The built library as that variant. A library picks its variant once, so each test has a copy of its own."""
    built = find_library()
    if built is None:
        pytest.skip("the kernels are not built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMRUN_KERNELS", variant)
        library = Library(Path(shutil.copy(built.path, folder)))
        if library.variant != variant:
            pytest.skip(f"this CPU has no {variant}")
    return library


def packed_weights(fmt: WeightFormat, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """`(rows, row_bytes)` of any bytes, but for the fp16 scales of the blocks, which are neither tiny nor infinite."""
    rng = np.random.default_rng(seed)
    packed = rng.integers(0, 256, (rows, fmt.row_bytes(columns)), dtype=np.uint8)
    blocks = packed.reshape(rows, -1, fmt.block_bytes)
    for at in (208,) if fmt.name == "Q6_K" else (0, 2) if fmt.name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else (0,):
        halves = rng.uniform(0.001, 0.02, blocks.shape[:2]) * rng.choice([-1, 1], blocks.shape[:2])
        blocks[..., at : at + 2] = halves.astype(np.float16)[..., None].view(np.uint8)
    return torch.from_numpy(packed)


def exact_activations(tokens: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Integers up to 127 in size, 127 in each group, times a power of two a group: int8 holds them as they are."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(-127, 128, (tokens, columns // GROUP, GROUP))
    groups[..., rng.integers(0, GROUP)] = rng.choice([-127, 127], groups.shape[:2])
    scales = np.exp2(rng.integers(-6, 6, (*groups.shape[:2], 1)))
    return torch.from_numpy((groups * scales).reshape(tokens, columns).astype(np.float32))
