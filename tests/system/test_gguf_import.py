"""A .gguf file in, a checkpoint out that plain transformers loads: same logits, nothing left behind by a failure."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gguf
import pytest
import torch
from gguf_factory import FAMILIES, gguf_tensors, tiny_model, write_gguf
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmrun.errors import CheckpointError, DeviceError
from llmrun.hub import Origin, gguf_import, resolve


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def everything(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.name != "models"]


@pytest.mark.parametrize("arch", FAMILIES)
def test_an_imported_model_has_the_logits_of_the_original(arch, tmp_path):
    original = tiny_model(arch)
    write_gguf(tmp_path / "tiny.gguf", arch, original, tokenizer="llama" if arch == "phi3" else "gpt2")
    folder = resolve(str(tmp_path / "tiny.gguf"), notify=lambda line: None).folder
    imported = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.arange(3, 40)[None]
    assert type(imported) is type(original)
    for name, tensor in original.state_dict().items():
        assert torch.equal(imported.state_dict()[name], tensor), name
    with torch.no_grad():
        assert torch.equal(imported(tokens).logits, original(tokens).logits)
    assert imported.config.tie_word_embeddings == original.config.tie_word_embeddings
    assert imported.generation_config.eos_token_id == 2


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_1", "Q5_0"])
def test_every_type_of_block_gives_what_gguf_itself_gives_rounded_to_bf16(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("llmrun.hub.gguf_weights._BLOCK_ELEMENTS", 64 * 16)  # several blocks a tensor
    number = gguf.GGMLQuantizationType[kind]
    model = tiny_model("qwen2")
    write_gguf(tmp_path / "tiny.gguf", "qwen2", model, kind=number)
    folder = resolve(str(tmp_path / "tiny.gguf"), notify=lambda line: None).folder
    matrix = gguf_tensors("qwen2", model)["blk.1.ffn_up.weight"]
    expected = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(matrix, number), number)).bfloat16()
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("model.layers.1.mlp.up_proj.weight"), expected)
        assert file.metadata() == {"format": "pt"}


def test_the_file_lies_in_the_order_of_a_forward_pass_and_its_data_begins_aligned(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", "llama", tiny_model("llama"))
    file = resolve(str(tmp_path / "tiny.gguf"), notify=lambda line: None).folder / "model.safetensors"
    with safe_open(file, "pt") as opened:
        names = list(opened.offset_keys())
    assert (8 + int.from_bytes(file.read_bytes()[:8], "little")) % 8 == 0
    assert names[0] == "model.embed_tokens.weight"
    layers = [int(name.split(".")[2]) for name in names if name.startswith("model.layers.")]
    assert layers == sorted(layers)
    assert set(names[-2:]) == {"model.norm.weight", "lm_head.weight"}


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

    def fill_up(source, target, pieces, wrote):
        target.write_bytes(b"half a model")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(gguf_import, "write_safetensors", fill_up)
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
        "def slow(source, target, pieces, wrote):\n"
        "    target.write_bytes(b'half')\n    time.sleep(60)\n"
        "gguf_import.write_safetensors = slow\n"
        f"resolve({str(tmp_path / 'tiny.gguf')!r}, notify=lambda line: None)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(cache.rglob("model.safetensors")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in stderr
    assert everything(cache) == []
