"""The shapes that planners are asked about are those of the real models."""

from pathlib import Path

import pytest
import shapes

from llmrun.checkpoint import ModelSpec, UnitKind, read_spec
from llmrun.units import KIB


def layers(spec: ModelSpec) -> list:
    return [unit for unit in spec.units if unit.kind is UnitKind.LAYER]


@pytest.mark.parametrize(
    ("build", "n_params", "kv_bytes_per_token", "tied"),
    [  # parameters as the model cards' safetensors tables have them; the inflated one is of no card
        (shapes.smollm2_135m, 134_515_008, 30 * 768, True),
        (shapes.inflated, 4_001_815_872, 38 * 768, True),
        (shapes.llama2_7b, 6_738_415_616, 512 * KIB, False),
        (shapes.llama_8b, 8_030_261_248, 128 * KIB, False),
        (shapes.llama_70b, 70_553_706_496, 320 * KIB, False),
        (shapes.llama_405b, 405_853_388_800, 504 * KIB, False),
    ],
)
def test_shapes_have_the_parameters_of_the_models(build, n_params, kv_bytes_per_token, tied):
    spec = build()
    assert (spec.n_params, spec.nbytes) == (n_params, 2 * n_params)
    assert (spec.kv_bytes_per_token, spec.tied_embeddings) == (kv_bytes_per_token, tied)
    assert not spec.is_local
    with pytest.raises(AssertionError, match="no weights"):
        spec.path(spec.embedding.file)


def test_a_mixture_computes_with_less_than_it_holds():
    spec = shapes.mixture_of_experts()
    assert [unit.name for unit in spec.units][2:5] == ["layer 0", "layer 1", "layer 2"]
    assert len(layers(spec)) == spec.n_layers == 24
    assert layers(spec)[1].nbytes > 5 * layers(spec)[0].nbytes
    assert spec.flops_per_token < spec.n_params  # a dense model has nearly twice its parameters


def test_a_hybrid_has_two_kinds_of_layers():
    spec = shapes.hybrid()
    kinds = {(unit.nbytes, unit.kv_bytes_per_token) for unit in layers(spec)}
    assert len(kinds) == 2
    assert sum(unit.kv_bytes_per_token == 0 for unit in layers(spec)) == 27
    assert spec.n_params > shapes.llama_8b().n_params


@pytest.mark.parametrize("name", ["SmolLM2-135M", "Llama-3.1-70B"])
def test_holes_on_a_disk_are_read_as_the_model(name, tmp_path: Path):
    folder = shapes.write_sparse(name, tmp_path / name)
    there, expected = read_spec(folder), shapes.spec_of(name)
    assert there.is_local
    assert (there.units, there.embedding) == (expected.units, expected.embedding)
    assert sum(path.stat().st_blocks * 512 for path in folder.iterdir()) < 2_000_000
