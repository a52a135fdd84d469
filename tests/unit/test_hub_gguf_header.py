from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrun.errors import CheckpointError
from llmrun.hub.gguf_family import config_fields, family_of, hf_name
from llmrun.hub.gguf_header import GgufHeader, GgufTensor, read_header


def small(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_float32("a.float", 0.5)
    writer.add_array("an.array", [1, 2, 3])
    writer.add_token_list(["a", "bc"])
    writer.add_tensor("one", np.arange(64, dtype=np.float32).reshape(2, 32))
    quantised = gguf.quants.quantize(np.ones((2, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("two", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def raw(path: Path, *parts: bytes, n_tensors: int = 0, n_keys: int = 0, version: int = 3) -> Path:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + b"".join(parts))
    return path


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def test_it_reads_what_the_reader_of_gguf_reads(tmp_path):
    header = read_header(small(tmp_path / "small.gguf"))
    other = gguf.GGUFReader(tmp_path / "small.gguf")
    assert header.architecture == "llama"
    assert header.metadata["a.float"] == 0.5
    assert header.metadata["an.array"] == [1, 2, 3]
    assert header.metadata["tokenizer.ggml.tokens"] == 2
    for mine, theirs in zip(header.tensors, other.tensors, strict=True):
        assert (mine.name, mine.offset, mine.nbytes) == (theirs.name, theirs.data_offset, theirs.n_bytes)
        assert mine.shape == tuple(theirs.shape[::-1])


def test_cut_at_any_byte_it_is_told_as_truncated(tmp_path):
    data = small(tmp_path / "small.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    last = read_header(tmp_path / "small.gguf").tensors[-1]
    assert len(data) - 32 < last.offset + last.nbytes <= len(data)  # what follows is padding
    for length in [*range(0, last.offset, 3), last.offset + last.nbytes - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(CheckpointError) as caught:
            read_header(cut)
        assert caught.value.reference == ("truncated-gguf" if length >= 4 else "not-a-gguf"), length


@given(st.data())
def test_flipped_bytes_are_refused_or_read_never_anything_else(tmp_path_factory, data):
    path = small(tmp_path_factory.mktemp("flip") / "small.gguf")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    header = None
    with suppress(CheckpointError):
        header = read_header(path)
    if header:
        assert all(tensor.offset + tensor.nbytes <= len(content) for tensor in header.tensors)


HOSTILE = {
    "an array of 2^60 numbers": {"n_keys": 1, "parts": [text(b"k"), struct.pack("<IIQ", 9, 4, 1 << 60)]},
    "an array of 2^60 strings": {"n_keys": 1, "parts": [text(b"k"), struct.pack("<IIQ", 9, 8, 1 << 60)]},
    "a string of 2^63 bytes": {"n_keys": 1, "parts": [text(b"k"), struct.pack("<IQ", 8, 1 << 63)]},
    "2^62 keys": {"n_keys": 1 << 62, "parts": []},
    "2^62 tensors": {"n_tensors": 1 << 62, "parts": []},
}


def info(name: bytes, *extents: int, kind: int = 0, offset: int = 0) -> bytes:
    """One row of the table of tensors."""
    return text(name) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, kind, offset)


def table(path: Path, *infos: bytes, data_nbytes: int = 256) -> Path:
    return raw(path, *infos, bytes(32 + data_nbytes), n_tensors=len(infos))


OUTSIDE = {
    "2^60 rows": info(b"t", 32, 1 << 60),
    "2^60 weights in blocks": info(b"t", 1 << 60, kind=12),
    "2^240 weights": info(b"t", *[1 << 60] * 4),
    "an offset of 2^60": info(b"t", 32, offset=1 << 60),
    "an offset of 2^64 - 1": info(b"t", 32, offset=(1 << 64) - 1),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_tensors_that_the_file_cannot_hold(what, tmp_path):
    with pytest.raises(CheckpointError, match="reaches to byte") as caught:
        read_header(table(tmp_path / "bad.gguf", OUTSIDE[what]))
    assert caught.value.reference == "truncated-gguf"


def test_tensors_may_share_neither_bytes_nor_a_name(tmp_path):
    apart = table(tmp_path / "good.gguf", info(b"a", 32), info(b"b", 32, offset=128))
    assert [tensor.nbytes for tensor in read_header(apart).tensors] == [128, 128]
    with pytest.raises(CheckpointError, match="puts tensor 'b' over tensor 'a'"):
        read_header(table(tmp_path / "bad.gguf", info(b"a", 32), info(b"b", 8, offset=127)))
    with pytest.raises(CheckpointError, match="names a tensor twice"):
        read_header(table(tmp_path / "bad.gguf", info(b"a", 32), info(b"a", 8, offset=128)))


@pytest.mark.parametrize("what", HOSTILE)
def test_counts_that_the_file_cannot_hold(what, tmp_path):
    counts = dict(HOSTILE[what])
    with pytest.raises(CheckpointError, match="in the middle of its header"):
        read_header(raw(tmp_path / "bad.gguf", *counts.pop("parts"), **counts))


BROKEN = {
    "version": {"version": 9},
    "unknown type": {"n_keys": 1, "parts": [text(b"k"), struct.pack("<I", 77)]},
    "not UTF-8": {"n_keys": 1, "parts": [text(b"\xff\xfe"), struct.pack("<I", 77)]},
    "alignment": {"n_keys": 1, "parts": [text(b"general.alignment"), struct.pack("<II", 4, 3)]},
    "9 dimensions": {"n_tensors": 1, "parts": [text(b"t"), struct.pack("<I", 9), bytes(64)]},
    "unknown type 99": {"n_tensors": 1, "parts": [text(b"t"), struct.pack("<IQIQ", 1, 32, 99, 0)]},
    "blocks are of 32": {"n_tensors": 1, "parts": [text(b"t"), struct.pack("<IQIQ", 1, 33, 8, 0)]},
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_makes_no_sense(what, tmp_path):
    fields = dict(BROKEN[what])
    with pytest.raises(CheckpointError, match=what):
        read_header(raw(tmp_path / "bad.gguf", *fields.pop("parts", []), **fields))


def test_no_gguf_at_all(tmp_path):
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "text.gguf").write_text("hello, I am a text")
    for name in ("empty.gguf", "text.gguf"):
        with pytest.raises(CheckpointError) as caught:
            read_header(tmp_path / name)
        assert caught.value.reference == "not-a-gguf"


def header_of(arch: str, *, n_layers: int = 1, **more: object) -> GgufHeader:
    base = {
        "context_length": 131072,
        "block_count": n_layers,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 500000.0,
    }
    metadata = {"general.architecture": arch, **{f"{arch}.{key}": value for key, value in base.items()}, **more}
    tensors = [GgufTensor("token_embd.weight", (300, 64), 0, 0, 0)]
    tensors += [GgufTensor(f"blk.{layer}.attn_norm.weight", (64,), 0, 0, 0) for layer in range(n_layers)]
    return GgufHeader(Path("some.gguf"), metadata, tuple(tensors))


def test_llama_3s_rotary_scaling_is_found_from_its_factors():
    """The factors are computed as llama.cpp's converter does, here with transformers' own function."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(
        hidden_size=256, num_attention_heads=4, head_dim=64, rope_theta=500000.0, rope_scaling=dict(scaling)
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 500000.0 ** (torch.arange(0, 64, 2) / 64)
    factors = {"rope_freqs.weight": (plain / scaled).tolist()}
    header = header_of("llama", **{"llama.rope.dimension_count": 64})
    assert config_fields(header, family_of(header), factors)["rope_scaling"] == scaling
    factors["rope_freqs.weight"][20] *= 2
    with pytest.raises(CheckpointError, match="a way of its own"):
        config_fields(header, family_of(header), factors)


def test_other_rotary_scalings():
    def scaling(**more: object) -> object:
        header = header_of("qwen2", **{f"qwen2.rope.scaling.{key}": value for key, value in more.items()})
        return config_fields(header, family_of(header), {}).get("rope_scaling")

    assert scaling() is scaling(type="none") is None
    assert scaling(type="linear", factor=8.0) == {"rope_type": "linear", "factor": 8.0}
    assert scaling(type="yarn", factor=4.0, original_context_length=32768) == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    }
    with pytest.raises(CheckpointError, match="'curly'"):
        scaling(type="curly")


def test_phi_3s_long_factors_become_part_of_the_config():
    header = header_of("phi3", **{"phi3.rope.scaling.original_context_length": 4096})
    factors = {"rope_factors_long.weight": [2.0, 4.0], "rope_factors_short.weight": [1.0, 1.5]}
    fields = config_fields(header, family_of(header), factors)
    assert fields["rope_scaling"] == {"rope_type": "longrope", "long_factor": [2.0, 4.0], "short_factor": [1.0, 1.5]}
    assert fields["original_max_position_embeddings"] == 4096


@pytest.mark.parametrize("value", [0, -1, "many", 2.5, [1, 2]])
def test_a_count_that_is_none(value):
    header = header_of("qwen3", **{"qwen3.attention.head_count": value})
    with pytest.raises(CheckpointError, match="head_count"):
        config_fields(header, family_of(header), {})


def test_every_token_that_ends_an_answer_is_kept():
    header = header_of("gemma3", **{"tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.eot_token_id": 106})
    assert config_fields(header, family_of(header), {})["eos_token_id"] == [1, 106]


def test_the_names_are_those_of_gguf_itself():
    for arch, value in {"llama": "llama", "qwen3": "qwen3", "gemma3": "gemma3", "phi3": "phi3"}.items():
        kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == value)
        names = gguf.get_tensor_name_map(kind, 2)
        family = family_of(header_of(arch))
        for leaf in family.layer:
            ours = hf_name(family, f"blk.1.{leaf}.weight")
            assert names.get_name(ours, (".weight",)) == f"blk.1.{leaf}.weight"
    assert hf_name(family, "blk.1.something.weight") is None
