"""Checkpoints in 8-bit floats, run in place: the logits are those of transformers on the weights they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from float8_checkpoints import save_float8
from placing import bytes_to_read, opened, plan_of
from tiny_model import reference_logits, some_tokens

from llmrun.checkpoint import read_spec
from llmrun.runtime.sequential import run_sequential

TOKENS = 24
BLOCKS = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}
GROUPS = {"type": "float", "num_bits": 8, "symmetric": True}


def compressed(**weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": GROUPS | weights}}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}


@dataclass(frozen=True)
class Published:
    """How a checkpoint has its scales."""

    block: tuple[int, int] | None
    config: dict[str, Any]
    suffix: str = "weight_scale"
    dtype: torch.dtype = torch.float32
    shape_of: Callable[[torch.Tensor], torch.Tensor] = lambda scales: scales


KINDS = {
    "blocks": Published((16, 16), BLOCKS, "weight_scale_inv"),
    "odd blocks": Published((20, 28), BLOCKS | {"weight_block_size": [20, 28]}, "weight_scale_inv", torch.bfloat16),
    "one": Published(None, {"quant_method": "fp8"}, shape_of=lambda scales: scales.reshape(())),
    "one of one": Published(None, compressed(strategy="tensor"), dtype=torch.bfloat16, shape_of=torch.flatten),
    "channels": Published((1, 0), compressed(strategy="channel"), dtype=torch.bfloat16),
    "rows": Published((1, 0), {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}),
    "groups": Published((1, 16), compressed(strategy="group", group_size=16), dtype=torch.float16),
    "block structure": Published((16, 16), compressed(strategy="block", block_structure=[16, 16])),
}
PLACEMENTS = {
    "resident": "RRRRRRRRR",
    "streamed": "dRddddddd",
    "gpu, ram and disk": "d00ax0ax0",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    made: dict[str, tuple[Any, Path]] = {}

    def make(kind: str) -> tuple[Any, Path]:
        if kind not in made:
            each, folder = KINDS[kind], tmp_path_factory.mktemp("float8")
            options = {"suffix": each.suffix, "scale_dtype": each.dtype, "shape_of": each.shape_of}
            made[kind] = save_float8(folder, each.block, each.config, family="qwen3", **options), folder
        return made[kind]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_scaling_equals_transformers(saved: Any, kind: str) -> None:
    model, folder = saved(kind)
    tokens = some_tokens(TOKENS)
    spec = read_spec(folder)
    assert spec.weight_formats["F8_E4M3"] == sum(p.numel() for n, p in model.named_parameters() if "proj" in n)
    assert spec.n_params == sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(run_sequential(spec, tokens), reference_logits(model, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", ["blocks", "channels"])
def test_every_placement_equals_transformers(saved: Any, kind: str, placement: str) -> None:
    model, folder = saved(kind)
    spec = read_spec(folder)
    tokens = some_tokens(TOKENS)
    expected = reference_logits(model, tokens)
    tolerance = 2e-3 if "0" not in PLACEMENTS[placement] else 5e-2  # the cache is fp16, and a GPU computes in bf16
    with opened(spec, plan_of(spec, PLACEMENTS[placement])) as (forward, _, _):
        found = [forward.prefill(tokens[:20]), *(forward.decode(token) for token in tokens[20:])]
    torch.testing.assert_close(torch.stack(found), expected[19:], rtol=0, atol=tolerance)


def test_what_is_streamed_is_read_in_its_own_bytes(saved: Any) -> None:
    _, folder = saved("blocks")
    spec = read_spec(folder)
    with opened(spec, plan_of(spec, PLACEMENTS["streamed"])) as (_, _, host):
        layer = spec.unit("layer 0")
        assert bytes_to_read(spec, host, "layer 0") < layer.n_params * 1.3 + 2 * 4096
