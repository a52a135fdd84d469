import json
from pathlib import Path

import pytest
from tiny_checkpoint import HIDDEN, VOCAB, header_of, llama_tensors, shard_bytes, write_checkpoint, write_sharded

from llmrun.checkpoint import UnitKind, read_spec

GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "hidden_size": ...,
    "num_hidden_layers": ...,
    "num_attention_heads": ...,
    "num_key_value_heads": ...,
    "intermediate_size": ...,
    "max_position_embeddings": ...,
    "tie_word_embeddings": ...,
    "n_embd": HIDDEN,
    "n_layer": 1,
    "n_head": 2,
    "n_positions": 32,
}


def test_units_come_in_execution_order_with_their_figures(tmp_path: Path) -> None:
    spec = read_spec(write_checkpoint(tmp_path / "tiny"))

    assert [unit.name for unit in spec.units] == ["embedding", "rest", "layer 0", "layer 1", "head"]
    assert [unit.kind for unit in spec.units][:2] == [UnitKind.EMBEDDING, UnitKind.REST]
    assert spec.name == "tiny"
    assert (spec.architecture, spec.model_type, spec.dtype) == ("LlamaForCausalLM", "llama", "BF16")
    layer = spec.unit("layer 1")
    assert layer.layer == 1
    assert layer.nbytes == 2 * (16 * 8 + 12 * 8 + 8)
    assert layer.flops_per_token == 2 * (16 * 8 + 12 * 8)
    assert layer.kv_bytes_per_token == 2 * 1 * 4 * 2  # keys and values, one head of four, two bytes
    assert spec.unit("embedding").flops_per_token == 0
    assert spec.unit("head").flops_per_token == 2 * VOCAB * HIDDEN
    assert spec.nbytes == 2 * spec.n_params == 2 * (2 * VOCAB * HIDDEN + 2 * (16 * 8 + 12 * 8 + 8) + 8)
    assert (spec.context_tokens, spec.tied_embeddings) == (64, False)


def test_offsets_point_at_the_bytes_in_the_file(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    data = (folder / "model.safetensors").read_bytes()
    header_end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:header_end])

    spec = read_spec(folder)

    tensors = [tensor for unit in spec.units for tensor in unit.tensors]
    assert len(tensors) == len(header) - 1
    for tensor in tensors:
        begin, end = header[tensor.name]["data_offsets"]
        assert (tensor.offset, tensor.nbytes) == (header_end + begin, end - begin)


def test_a_layer_may_be_split_over_shards(tmp_path: Path) -> None:
    names = list(tensors := llama_tensors())
    shards = {"b.safetensors": names[:3], "a.safetensors": names[3:]}
    folder = write_sharded(tmp_path, {file: {name: tensors[name] for name in part} for file, part in shards.items()})

    layer = read_spec(folder).unit("layer 0")

    assert [tensor.file for tensor in layer.tensors] == ["a.safetensors", "b.safetensors", "b.safetensors"]
    assert layer.tensors[1].offset < layer.tensors[2].offset


def test_several_files_without_an_index_are_one_checkpoint(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path, {"a.safetensors": llama_tensors(1), "b.safetensors": {
        name: value for name, value in llama_tensors(2).items() if ".layers.1." in name
    }})  # fmt: skip
    (folder / "model.safetensors.index.json").unlink()

    assert read_spec(folder).n_layers == 2


@pytest.mark.parametrize(
    ("said", "head", "tied"), [(True, False, True), (..., False, True), (..., True, False), (False, True, False)]
)
def test_a_tied_matrix_is_counted_once(tmp_path: Path, said: object, head: bool, tied: bool) -> None:
    spec = read_spec(write_checkpoint(tmp_path, llama_tensors(head=head), tie_word_embeddings=said))

    assert spec.tied_embeddings is tied
    assert spec.embedding.name == "model.embed_tokens.weight"
    if tied:
        assert spec.unit("embedding").tensors == ()
        assert spec.unit("head").tensors == (spec.embedding,)
        assert spec.unit("head").flops_per_token == 2 * VOCAB * HIDDEN


def test_a_tied_head_that_is_a_duplicate_is_dropped_and_one_that_differs_is_kept(tmp_path: Path) -> None:
    header = header_of(llama_tensors())
    nbytes = header["lm_head.weight"]["data_offsets"][1]
    data = bytearray(shard_bytes(json.dumps(header).encode(), nbytes))
    start = len(data) - nbytes
    matrix = 2 * VOCAB * HIDDEN
    folder = write_checkpoint(tmp_path, tie_word_embeddings=True)
    (folder / "model.safetensors").write_bytes(data)
    assert not read_spec(folder).tied_embeddings

    data[-matrix:] = data[start : start + matrix]
    (folder / "model.safetensors").write_bytes(data)
    spec = read_spec(folder)
    assert spec.tied_embeddings
    assert [tensor.name for tensor in spec.unit("head").tensors] == ["model.embed_tokens.weight"]


def test_a_tied_checkpoint_may_hold_only_the_head(tmp_path: Path) -> None:
    tensors = llama_tensors()
    del tensors["model.embed_tokens.weight"]
    spec = read_spec(write_checkpoint(tmp_path, tensors, tie_word_embeddings=True))

    assert spec.embedding.name == "lm_head.weight"
    assert spec.unit("head").tensors == (spec.embedding,)


def test_gpt2_without_a_prefix_keeps_positions_and_drops_causal_masks(tmp_path: Path) -> None:
    tensors = {
        "wte.weight": ("F32", (VOCAB, HIDDEN)),
        "wpe.weight": ("F32", (32, HIDDEN)),
        "h.0.attn.bias": ("U8", (1, 1, 32, 32)),
        "h.0.attn.masked_bias": ("F32", ()),
        "h.0.attn.c_attn.weight": ("F32", (HIDDEN, 3 * HIDDEN)),
        "h.0.attn.c_attn.bias": ("F32", (3 * HIDDEN,)),
        "ln_f.weight": ("F32", (HIDDEN,)),
    }
    spec = read_spec(write_checkpoint(tmp_path, tensors, **GPT2))

    assert [tensor.name for tensor in spec.unit("layer 0").tensors] == list(tensors)[4:6]
    assert [tensor.name for tensor in spec.unit("rest").tensors] == ["wpe.weight", "ln_f.weight"]
    assert (spec.intermediate_size, spec.context_tokens, spec.n_kv_heads) == (4 * HIDDEN, 32, 2)
    assert spec.tied_embeddings
    assert spec.unit("layer 0").kv_bytes_per_token == 2 * 2 * 4 * 4


def test_rotary_buffers_of_old_checkpoints_are_dropped(tmp_path: Path) -> None:
    tensors = llama_tensors() | {"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (2,))}
    spec = read_spec(write_checkpoint(tmp_path, tensors))

    assert spec.unit("layer 0").nbytes == spec.unit("layer 1").nbytes


def test_a_bias_of_the_head_belongs_to_it(tmp_path: Path) -> None:
    tensors = llama_tensors() | {"lm_head.bias": ("BF16", (VOCAB,))}
    head = read_spec(write_checkpoint(tmp_path, tensors)).unit("head")

    assert [tensor.name for tensor in head.tensors] == ["lm_head.weight", "lm_head.bias"]
    assert head.flops_per_token == 2 * VOCAB * HIDDEN


def test_the_dtype_is_that_of_most_bytes_of_the_layers(tmp_path: Path) -> None:
    tensors = llama_tensors(dtype="F16") | {"model.layers.0.input_layernorm.weight": ("F32", (HIDDEN,))}
    assert read_spec(write_checkpoint(tmp_path, tensors)).dtype == "F16"


QWEN = {"model_type": "qwen2", "num_hidden_layers": 4, "sliding_window": 8, "max_window_layers": 3}


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        ({"model_type": "llama", "num_hidden_layers": 2}, [None, None]),
        (QWEN, [None] * 4),
        (QWEN | {"use_sliding_window": True}, [None, None, None, 8]),
        ({"model_type": "mistral", "num_hidden_layers": 2}, [4096, 4096]),
        ({"model_type": "mistral", "num_hidden_layers": 2, "sliding_window": None}, [None, None]),
        ({"model_type": "phi3", "num_hidden_layers": 2, "sliding_window": 16}, [16, 16]),
        ({"model_type": "gemma3_text", "num_hidden_layers": 7, "sliding_window": 4}, [4, 4, 4, 4, 4, None, 4]),
        (
            {"model_type": "gemma3_text", "num_hidden_layers": 3, "sliding_window": 4, "sliding_window_pattern": 2},
            [4, None, 4],
        ),
        (
            {
                "model_type": "unheard_of",
                "num_hidden_layers": 2,
                "sliding_window": 4,
                "layer_types": ["full_attention", "sliding_attention"],
            },
            [None, 4],
        ),
        ({"model_type": "unheard_of", "num_hidden_layers": 2, "sliding_window": 4}, [None, None]),
    ],
)
def test_sliding_windows_follow_the_family(tmp_path: Path, config: dict, windows: list[int | None]) -> None:
    folder = write_checkpoint(tmp_path, llama_tensors(config["num_hidden_layers"]), head_dim=4, **config)
    spec = read_spec(folder)
    assert [unit.kv_window_tokens for unit in spec.units if unit.kind is UnitKind.LAYER] == windows


def test_heads_that_config_leaves_unsaid_follow_the_family(tmp_path: Path) -> None:
    falcon = write_checkpoint(
        tmp_path / "falcon", model_type="falcon", multi_query=True, num_key_value_heads=..., tie_word_embeddings=False
    )
    gemma = write_checkpoint(tmp_path / "gemma", model_type="gemma3_text", num_key_value_heads=...)
    llama = write_checkpoint(tmp_path / "llama", num_key_value_heads=...)

    assert read_spec(falcon).n_kv_heads == 1
    assert (read_spec(gemma).n_kv_heads, read_spec(gemma).head_dim) == (4, 256)
    assert (read_spec(llama).n_kv_heads, read_spec(llama).head_dim) == (2, 4)


def test_native_families_may_carry_an_old_auto_map(tmp_path: Path) -> None:
    auto_map = {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}
    assert read_spec(write_checkpoint(tmp_path, model_type="phi3", auto_map=auto_map)).model_type == "phi3"


def test_remote_code_is_read_about_when_it_is_trusted(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, model_type="mine", auto_map={"AutoConfig": "x.Y"})
    assert read_spec(folder, trust_remote_code=True).model_type == "mine"
