"""A .gguf file in, a model out whose weights stay in that file: the same weights, nothing left behind by a failure."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_factory import FAMILIES, gguf_tensors, tiny_model, write_gguf
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from llmrun.checkpoint import TensorSpec, read_spec
from llmrun.checkpoint.fingerprint import fingerprint
from llmrun.errors import CheckpointError, DeviceError
from llmrun.formats import FORMATS
from llmrun.hardware.measure_disk import checkpoint_files
from llmrun.hub import LocalModel, Origin, find_spec, gguf_import, inventory, resolve


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def everything(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.name != "models"]


def take(name: str, said: list[str] | None = None) -> LocalModel:
    return resolve(name, notify=([] if said is None else said).append)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """What the checkpoint's description says that the weights are, in fp32: read, dequantised, and undone."""
    spec = read_spec(folder)
    tensors = {spec.embedding} | {tensor for unit in spec.units for tensor in unit.tensors}
    return {tensor.name: weights(tensor, spec.path(tensor.file)) for tensor in tensors}


def weights(tensor: TensorSpec, path: Path) -> torch.Tensor:
    raw = np.fromfile(path, np.uint8, tensor.nbytes, offset=tensor.offset)
    number = gguf.GGMLQuantizationType(FORMATS[tensor.dtype].number)
    values = torch.from_numpy(gguf.quants.dequantize(raw, number).astype(np.float32)).view(tensor.shape)
    if tensor.paired_head_dim:
        values = values.unflatten(0, (-1, tensor.paired_head_dim // 2, 2)).transpose(1, 2).reshape(tensor.shape)
    return values - 1 if tensor.minus_one else values


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_weights_described_are_those_of_the_original_and_stay_in_the_file(arch, tmp_path, cache):
    original = tiny_model(arch)
    source = tmp_path / "tiny.gguf"
    write_gguf(source, arch, original, tokenizer="llama" if arch == "phi3" else "gpt2")
    described = find_spec(str(source), notify=lambda line: None)
    folder = take(str(source)).folder
    spec = read_spec(folder, name=str(source))
    config = AutoConfig.from_pretrained(folder)
    expected = dict(original.named_parameters())
    found = weights_of(folder)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():  # one is added to Gemma's norms and taken away again
        assert torch.allclose(tensor, expected[name], rtol=0, atol=1e-6 if arch == "gemma3" else 0), name
    assert config.architectures == [type(original).__name__]
    assert config.tie_word_embeddings == original.config.tie_word_embeddings == spec.tied_embeddings
    assert GenerationConfig.from_pretrained(folder).eos_token_id == 2
    assert (spec.dtype, spec.weight_formats) == ("F32", {"F32": spec.nbytes})
    assert replace(described, folder=spec.folder) == spec
    assert fingerprint(described) == fingerprint(spec)
    assert sum(path.lstat().st_size for path in everything(cache) if not path.is_dir()) < source.stat().st_size / 2
    assert checkpoint_files(folder) == [source]  # where the disk is measured


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_every_type_stays_as_it_is_packed(kind, tmp_path):
    number = gguf.GGMLQuantizationType[kind]
    model = tiny_model("qwen2")
    write_gguf(tmp_path / "tiny.gguf", "qwen2", model, kind=number)
    spec = read_spec(take(str(tmp_path / "tiny.gguf")).folder)
    matrix = gguf_tensors("qwen2", model)["blk.1.ffn_up.weight"]
    tensor = next(one for one in spec.unit("layer 1").tensors if "up_proj" in one.name)
    assert (tensor.dtype, tensor.shape) == (kind, matrix.shape)
    assert spec.path(tensor.file).read_bytes()[tensor.offset :][: tensor.nbytes] == (
        gguf.quants.quantize(matrix, number).tobytes()
    )
    assert spec.weight_formats.keys() == {kind, "F32"}
    assert spec.dtype == ("F16" if kind == "F16" else "BF16")
    assert spec.n_params == sum(parameter.numel() for parameter in model.parameters())


def test_rows_of_q_and_k_and_their_biases_are_marked_as_pairs(tmp_path):
    model = tiny_model("llama", attention_bias=True)
    write_gguf(tmp_path / "tiny.gguf", "llama", model)
    folder = take(str(tmp_path / "tiny.gguf")).folder
    marked = {
        tensor.name.split("self_attn.")[1]: tensor.paired_head_dim
        for tensor in read_spec(folder).unit("layer 0").tensors
        if tensor.paired_head_dim
    }
    assert marked == {"q_proj.weight": 16, "q_proj.bias": 16, "k_proj.weight": 16, "k_proj.bias": 16}
    found = weights_of(folder)
    assert all(torch.equal(found[name], tensor) for name, tensor in model.named_parameters())


def test_types_that_cannot_be_read_are_named_with_those_that_the_file_has(tmp_path, cache):
    write_gguf(tmp_path / "odd.gguf", "llama", tiny_model("llama"))
    retype(tmp_path / "odd.gguf", "blk.1.ffn_up.weight", gguf.GGMLQuantizationType.I32)
    with pytest.raises(CheckpointError, match=r"cannot be read yet: I32 \(1\); it holds F32, I32") as caught:
        take(str(tmp_path / "odd.gguf"))
    assert caught.value.reference == "gguf-unsupported"
    assert "Q4_K" in caught.value.hint
    assert not cache.exists()


def test_a_vector_must_be_plain(tmp_path):
    model = tiny_model("llama")
    write_gguf(tmp_path / "odd.gguf", "llama", model)
    retype(tmp_path / "odd.gguf", "blk.1.ffn_norm.weight", gguf.GGMLQuantizationType.Q8_0)
    with pytest.raises(CheckpointError, match=r"the vector 'blk\.1\.ffn_norm\.weight' in Q8_0"):
        take(str(tmp_path / "odd.gguf"))


def retype(path: Path, name: str, number: int) -> None:
    """Change the type that the header gives a tensor, so that it still fits into its place."""
    data = bytearray(path.read_bytes())
    at = data.index(name.encode()) + len(name)
    at += 4 + 8 * int.from_bytes(data[at : at + 4], "little")
    data[at : at + 4] = int(number).to_bytes(4, "little")
    path.write_bytes(data)


def test_a_model_is_as_large_as_its_file_and_frees_what_was_made_of_it(tmp_path):
    source = tmp_path / "tiny.gguf"
    write_gguf(source, "qwen2", tiny_model("qwen2"))
    take(str(source))
    (model,) = [model for model in inventory.installed() if model.origin is Origin.GGUF]
    assert model.size_bytes > source.stat().st_size
    assert 0 < inventory.remove("tiny") < source.stat().st_size / 2
    assert source.exists()


def test_without_links_the_file_is_named_by_its_path(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    write_gguf(tmp_path / "tiny.gguf", "qwen2", tiny_model("qwen2"))
    spec = read_spec(take(str(tmp_path / "tiny.gguf")).folder)
    assert spec.path(spec.embedding.file) == tmp_path / "tiny.gguf"


def test_a_file_that_has_changed_or_gone_is_told_and_not_read(tmp_path):
    source = tmp_path / "tiny.gguf"
    write_gguf(source, "qwen2", tiny_model("qwen2"))
    folder = take(str(source)).folder
    read_spec(folder)
    os.utime(source, ns=(1, 1))
    with pytest.raises(CheckpointError, match="was written to after") as caught:
        read_spec(take("tiny").folder)
    assert (caught.value.reference, str(source) in caught.value.hint) == ("gguf-changed", True)
    with source.open("ab") as file:
        file.write(bytes(32))
    with pytest.raises(CheckpointError, match="bytes long, and was"):
        read_spec(folder)
    source.unlink()
    with pytest.raises(CheckpointError, match="is not there any more") as caught:
        read_spec(folder)
    assert caught.value.reference == "gguf-changed"


def test_the_tokenizer_comes_along(tmp_path):
    write_gguf(tmp_path / "bytes.gguf", "llama", tiny_model("llama"))
    tokenizer = AutoTokenizer.from_pretrained(resolve(str(tmp_path / "bytes.gguf"), notify=lambda line: None).folder)
    text = "ab 12  7<|im_end|>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("ab")["input_ids"]) == 1
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_start|>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == (
        "<|im_start|>hi<|im_end|>"
    )


def test_a_sentencepiece_vocabulary_puts_its_first_token_before_the_text(tmp_path):
    write_gguf(tmp_path / "pieces.gguf", "llama", tiny_model("llama"), tokenizer="llama")
    tokenizer = AutoTokenizer.from_pretrained(resolve(str(tmp_path / "pieces.gguf"), notify=lambda line: None).folder)
    ids = tokenizer("abc")["input_ids"]
    assert ids[0] == 1
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "abc"


def test_the_second_time_nothing_is_done_and_a_changed_file_is_imported_anew(tmp_path):
    source = tmp_path / "tiny.gguf"
    write_gguf(source, "qwen2", tiny_model("qwen2"))
    said: list[str] = []
    first = resolve(str(source), notify=said.append)
    again = resolve(str(source), notify=said.append)
    assert first == again
    assert first.origin is Origin.GGUF
    assert len(said) == 1
    os.utime(source, ns=(1, 1))
    assert resolve(str(source), notify=said.append).folder != first.folder
    assert not first.folder.exists()  # without its weights it is of no use
    assert resolve("tiny", notify=said.append).origin is Origin.GGUF  # by the name that `llmrun list` shows


def test_a_tensor_too_few_is_told_by_name_before_weights_are_read(tmp_path, cache):
    write_gguf(tmp_path / "tiny.gguf", "qwen2", tiny_model("qwen2"), drop="blk.2.ffn_up.weight")
    with pytest.raises(CheckpointError, match=r"model\.layers\.2\.mlp\.up_proj\.weight") as caught:
        resolve(str(tmp_path / "tiny.gguf"), notify=lambda line: None)
    assert caught.value.reference == "broken-gguf"
    assert everything(cache) == []


@pytest.mark.parametrize("arch", ["mamba", "gpt2"])
def test_another_family_is_refused_by_name(arch, tmp_path, cache):
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", arch)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=arch) as caught:
        resolve(str(tmp_path / "other.gguf"), notify=lambda line: None)
    assert caught.value.reference == "gguf-unsupported"
    assert not cache.exists()


def test_a_mixture_of_experts_is_refused(tmp_path):
    write_gguf(tmp_path / "moe.gguf", "llama", tiny_model("llama"), add={"llama.expert_count": 8})
    with pytest.raises(CheckpointError, match="mixture of experts"):
        resolve(str(tmp_path / "moe.gguf"), notify=lambda line: None)


def test_a_count_of_layers_that_the_tensors_do_not_bear_out_is_refused(tmp_path):
    model = tiny_model("llama")
    model.config.num_hidden_layers = 3
    write_gguf(tmp_path / "liar.gguf", "llama", model)
    data = (tmp_path / "liar.gguf").read_bytes()
    key = b"llama.block_count" + (4).to_bytes(4, "little")
    at = data.index(key) + len(key)
    (tmp_path / "liar.gguf").write_bytes(data[:at] + (2_000_000_000).to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(CheckpointError, match="claims 2,000,000,000 layers"):
        resolve(str(tmp_path / "liar.gguf"), notify=lambda line: None)


def test_a_truncated_file_is_told_and_leaves_nothing(tmp_path, cache):
    write_gguf(tmp_path / "tiny.gguf", "llama", tiny_model("llama"))
    os.truncate(tmp_path / "tiny.gguf", (tmp_path / "tiny.gguf").stat().st_size - 1000)
    with pytest.raises(CheckpointError) as caught:
        resolve(str(tmp_path / "tiny.gguf"), notify=lambda line: None)
    assert caught.value.reference == "truncated-gguf"
    assert not cache.exists()


def test_too_little_room_is_told_before_anything_is_written(tmp_path, cache, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf", "llama", tiny_model("llama"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(DeviceError, match="no room") as caught:
        resolve(str(tmp_path / "tiny.gguf"), notify=lambda line: None)
    assert caught.value.reference == "disk-full"
    assert caught.value.rows[1].amount == "1000 B"
    assert not cache.exists()


def test_a_disk_that_fills_on_the_way_leaves_nothing(tmp_path, cache, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf", "llama", tiny_model("llama"))

    def fill_up(source, folder):
        (folder / "tokenizer.json").write_bytes(b"half a tokenizer")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(gguf_import, "save_tokenizer", fill_up)
    with pytest.raises(DeviceError) as caught:
        resolve(str(tmp_path / "tiny.gguf"), notify=lambda line: None)
    assert caught.value.reference == "disk-full"
    assert everything(cache) == []


def test_a_disk_that_fills_under_the_tokenizer_is_told_alike(tmp_path, cache, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf", "llama", tiny_model("llama"))

    def fill_up(self, folder):
        raise Exception("No space left on device (os error 28)")  # as the tokenizers library does

    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", fill_up)
    with pytest.raises(DeviceError) as caught:
        resolve(str(tmp_path / "tiny.gguf"), notify=lambda line: None)
    assert caught.value.reference == "disk-full"
    assert everything(cache) == []


def test_sigint_on_the_way_leaves_nothing(tmp_path, cache):
    write_gguf(tmp_path / "tiny.gguf", "llama", tiny_model("llama"))
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom llmrun.hub import gguf_import, resolve\n"
        "def slow(source, folder):\n"
        "    (folder / 'tokenizer.json').write_bytes(b'half')\n    time.sleep(60)\n"
        "gguf_import.save_tokenizer = slow\n"
        f"resolve({str(tmp_path / 'tiny.gguf')!r}, notify=lambda line: None)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(cache.rglob("tokenizer.json")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in stderr
    assert everything(cache) == []
