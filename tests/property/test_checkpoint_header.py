import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoint import header_of, llama_tensors, shard_bytes, write_config

from llmrun.checkpoint import ModelSpec, read_spec
from llmrun.errors import CheckpointError
from llmrun.formats import FORMATS

HEADER = header_of(llama_tensors())
DATA_NBYTES = max(entry["data_offsets"][1] for name, entry in HEADER.items() if name != "__metadata__")
FILE = shard_bytes(json.dumps(HEADER).encode(), DATA_NBYTES)

numbers = st.one_of(st.integers(-2, 2000), st.sampled_from([2**31, 2**60, 2**63, 2**64, -(2**60), 10**30]))
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(["BF16", "F32", "F4", "U8", "F99"]), junk),
        "shape": st.one_of(st.lists(numbers, max_size=4), junk),
        "data_offsets": st.one_of(st.lists(numbers, min_size=2, max_size=2), junk),
    },
)

CONFIG_KEYS = [
    "architectures", "auto_map", "head_dim", "hidden_size", "layer_types", "max_window_layers", "model_type",
    "multi_query", "num_experts", "num_hidden_layers", "num_key_value_heads", "quantization_config", "sliding_window",
    "tie_word_embeddings", "use_sliding_window", "vocab_size", "unheard_of",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


def outcome(folder: Path, data: bytes, **config: Any) -> ModelSpec | CheckpointError:
    """What reading the checkpoint with this shard gives; any other exception fails the test."""
    write_config(folder, **config)
    (folder / "model.safetensors").write_bytes(data)
    try:
        return read_spec(folder)
    except CheckpointError as error:
        return error


def test_the_file_that_is_mutated_is_sound(folder: Path) -> None:
    assert isinstance(outcome(folder, FILE), ModelSpec)


@given(st.sampled_from(sorted(HEADER)), st.one_of(entries, junk))
@settings(deadline=None)
def test_a_strange_entry_is_read_or_refused(folder: Path, name: str, entry: Any) -> None:
    base = HEADER.get(name)
    changed = base | entry if isinstance(base, dict) and isinstance(entry, dict) else entry
    got = outcome(folder, shard_bytes(json.dumps(HEADER | {name: changed}).encode(), DATA_NBYTES))
    if isinstance(got, ModelSpec):
        assert all(tensor.offset + tensor.nbytes <= len(FILE) + 2000 for unit in got.units for tensor in unit.tensors)


@given(st.dictionaries(st.text(max_size=30), st.one_of(entries, junk), max_size=5))
@settings(deadline=None)
def test_any_header_is_refused_when_the_tensors_are_not_there(folder: Path, header: dict[str, Any]) -> None:
    assert isinstance(outcome(folder, shard_bytes(json.dumps(header).encode(), 100)), CheckpointError)


@given(
    st.one_of(st.sampled_from(["Q8_0", "Q4_K", "BF16", "Q2_K"]), junk),
    st.dictionaries(st.sampled_from([*HEADER, "absent"]), junk, max_size=1),
    st.sampled_from([[16, 8], [8, 34], [2, 144], [0, 34], [272]]),
)
@settings(deadline=None)
def test_strange_formats_are_read_as_what_fits_the_bytes_or_refused(
    folder: Path, claimed: Any, others: dict[str, Any], shape: list[int]
) -> None:
    """The first matrix is bytes of some shape, and the header says any formats."""
    name = "model.layers.0.self_attn.qkv.weight"
    tensors = llama_tensors() | {name: ("U8", tuple(shape))}
    header = header_of(tensors)
    end = max(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")
    header["__metadata__"]["llmrun.formats"] = json.dumps({name: claimed} | others)
    got = outcome(folder, shard_bytes(json.dumps(header).encode(), end))
    if isinstance(got, ModelSpec):
        tensor = next(tensor for tensor in got.unit("layer 0").tensors if tensor.name == name)
        assert tensor.nbytes == tensor.shape[0] * FORMATS[tensor.dtype].row_bytes(tensor.shape[1])


@given(st.integers(0, len(FILE) - 1), st.integers(0, 255))
@settings(deadline=None)
def test_a_changed_byte_is_read_or_refused(folder: Path, position: int, byte: int) -> None:
    outcome(folder, FILE[:position] + bytes([byte]) + FILE[position + 1 :])


@given(st.integers(0, len(FILE) - 1))
@settings(deadline=None)
def test_every_cut_is_refused(folder: Path, length: int) -> None:
    got = outcome(folder, FILE[:length])
    assert isinstance(got, CheckpointError)
    assert got.reference in ("truncated-shard", "broken-header")


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_noise_is_refused(folder: Path, data: bytes) -> None:
    assert isinstance(outcome(folder, data), CheckpointError)


@given(st.dictionaries(st.sampled_from(CONFIG_KEYS), junk))
@settings(deadline=None)
def test_a_strange_config_is_read_or_refused(folder: Path, changes: dict[str, Any]) -> None:
    got = outcome(folder, FILE, **changes)
    assert isinstance(got, CheckpointError) or got.n_layers == 2
