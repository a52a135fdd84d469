"""Models described without being fetched: from their headers on a hub, or from the header of a GGUF file."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import shapes
from fake_hub import COMMIT, FakeHub, running
from gguf_factory import tiny_model, write_gguf
from huggingface_hub import constants
from tiny_checkpoint import header_of, llama_tensors, shard_bytes, write_checkpoint, write_sharded

from llmrun.checkpoint import ModelSpec, read_spec
from llmrun.checkpoint.header import FIRST_BYTES
from llmrun.errors import CheckpointError, DeviceError, LlmrunError
from llmrun.hub import find_spec, resolve
from llmrun.hub.aliases import Alias, Mirror
from llmrun.hub.remote import _at_most
from llmrun.units import format_bytes


@pytest.fixture(autouse=True)
def _own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "ours"))
    monkeypatch.delenv("LLMRUN_MODEL", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def hub(monkeypatch) -> Iterator[FakeHub]:
    """An empty hub that the library asks."""
    with running({}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


def silent(line: str) -> None:
    pass


def offer(hub: FakeHub, folder: Path, **others: bytes) -> None:
    hub.files = {path.name: path.read_bytes() for path in folder.iterdir()} | others


def offer_shape(hub: FakeHub, name: str) -> None:
    files = shapes.headers(name)
    hub.files, hub.sizes = files.beginnings, files.sizes


def refusal(name: str = "org/tiny", *, offline: bool = False) -> LlmrunError:
    with pytest.raises((CheckpointError, DeviceError)) as caught:
        find_spec(name, notify=silent, offline=offline)
    return caught.value


def anonymous(spec: ModelSpec) -> ModelSpec:
    return replace(spec, name="", folder="")


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_headers_of_a_large_model_are_all_that_is_fetched(hub, tmp_path):
    offer_shape(hub, "Llama-3.1-70B")
    said: list[str] = []
    spec = find_spec("org/tiny", notify=said.append)

    assert anonymous(spec) == anonymous(shapes.llama_70b())
    assert (spec.name, spec.folder, spec.is_local) == ("org/tiny", f"hf://org/tiny@{COMMIT}", False)
    assert sorted(hub.fetched) == sorted(hub.files)  # one request for each file
    small = sum(hub.size(name) for name in hub.files if name.endswith(".json"))
    assert hub.sent_bytes == small + 30 * FIRST_BYTES < 10**6
    assert len(said) == 1
    assert "131.4 GiB stay there" in said[0]
    assert files_below(tmp_path) == []


def test_a_header_longer_than_the_first_part_takes_one_more_request(hub):
    offer_shape(hub, "SmolLM2-135M")
    assert anonymous(find_spec("org/tiny", notify=silent)) == anonymous(shapes.smollm2_135m())
    [shard] = hub.sizes
    header_bytes = len(hub.files[shard])
    assert header_bytes > FIRST_BYTES
    assert hub.fetched == ["config.json", shard, shard]
    assert hub.sent_bytes == len(hub.files["config.json"]) + header_bytes


def test_a_small_checkpoint_is_the_same_from_far_as_from_near(hub, tmp_path):
    names = list(tensors := llama_tensors())
    shards = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    parts = {file: {name: tensors[name] for name in part} for file, part in shards.items()}
    folder = write_sharded(tmp_path / "near", parts)
    offer(hub, folder, **{"consolidated.safetensors": b"the same again", "README.md": b"words"})

    assert anonymous(find_spec("org/tiny", notify=silent)) == anonymous(read_spec(folder))
    assert sorted(hub.fetched) == ["a.safetensors", "b.safetensors", "config.json", "model.safetensors.index.json"]


def test_a_revision_is_asked_for_and_then_its_commit(hub, tmp_path):
    offer(hub, write_checkpoint(tmp_path / "near"))
    spec = find_spec("org/tiny@v1.0", notify=silent)
    assert (spec.name, spec.folder) == ("org/tiny@v1.0", f"hf://org/tiny@{COMMIT}")
    assert hub.revisions == {COMMIT}  # a branch may move between two requests


@pytest.mark.parametrize("equal", [True, False])
def test_a_tied_head_is_compared_by_samples(hub, tmp_path, equal):
    header = header_of(llama_tensors())
    begin, end = header["lm_head.weight"]["data_offsets"]
    data = bytearray(shard_bytes(json.dumps(header).encode(), end))
    if equal:
        data[-(end - begin) :] = data[len(data) - end :][: end - begin]
    folder = write_checkpoint(tmp_path / "near", tie_word_embeddings=True)
    (folder / "model.safetensors").write_bytes(data)
    offer(hub, folder)
    spec = find_spec("org/tiny", notify=silent)
    assert spec.tied_embeddings is equal
    assert anonymous(spec) == anonymous(read_spec(folder))


def test_what_is_in_the_cache_is_read_there(hub, tmp_path):
    offer(hub, write_checkpoint(tmp_path / "near"), **{"tokenizer.json": b"{}"})
    folder = resolve("org/tiny", notify=silent).folder
    hub.fetched.clear()
    before = files_below(tmp_path)
    for offline in (False, True):
        spec = find_spec("org/tiny", notify=silent, offline=offline)
        assert (spec.folder, spec.is_local, spec.name) == (str(folder), True, "org/tiny")
    assert hub.fetched == []
    assert files_below(tmp_path) == before


def test_a_server_that_ignores_ranges_is_stopped(hub):
    offer_shape(hub, "Llama-2-7B")
    hub.knows_ranges = False
    error = refusal()
    assert (error.reference, error.exit_code) == ("ranges-ignored", 5)
    assert format_bytes(max(hub.sizes.values())) in error.message
    assert "llmrun pull" in (error.hint or "")
    assert hub.sent_bytes < 100 * 2**20  # what the buffers of the sockets took before they were closed


def test_a_body_without_an_end_is_read_as_far_as_it_was_asked_for():
    assert _at_most(itertools.repeat(b"abc"), 7) == b"abcabca"
    assert _at_most(iter([b"ab"]), 7) == b"ab"


@pytest.mark.parametrize(
    ("refused", "reference", "hint"),
    [
        ((403, "GatedRepo"), "model-gated", "HF_TOKEN"),
        ((401, "GatedRepo"), "model-gated", "HF_TOKEN"),
        ((401, "RepoNotFound"), "model-not-found", "HF_TOKEN"),
        ((404, "RepoNotFound"), "model-not-found", "spelling"),
        ((404, "RevisionNotFound"), "revision-not-found", ""),
        ((404, "EntryNotFound"), "download-failed", "try again"),
        ((500, ""), "download-failed", "try again"),
    ],
)
@pytest.mark.parametrize("files_only", [True, False])
def test_what_the_hub_refuses_is_told_as_for_a_download(refused, reference, hint, files_only, hub, tmp_path):
    offer(hub, write_checkpoint(tmp_path / "near"))
    hub.refusal, hub.file_refusal = (None, refused) if files_only else (refused, None)
    error = refusal()
    assert error.reference == reference
    assert hint in (error.hint or "")
    assert "download" not in error.message


def test_a_model_of_a_kind_that_cannot_run_costs_one_small_request(hub, tmp_path):
    offer(hub, write_checkpoint(tmp_path / "near", num_local_experts=8))
    assert refusal().reference == "unsupported-format"
    assert hub.fetched == ["config.json"]


@pytest.mark.parametrize(
    ("change", "reference"),
    [
        ({"config.json": None}, "no-config"),
        ({"config.json": b"{"}, "broken-config"),
        ({"b.safetensors": None}, "missing-shard"),
        ({"model.safetensors.index.json": b"[]"}, "broken-index"),
        ({"b.safetensors": b"\x01"}, "truncated-shard"),
        ({"b.safetensors": (4096).to_bytes(8, "little") + b'{"a"'}, "broken-header"),
        ({"b.safetensors": (99).to_bytes(8, "little") + b"{" * 200}, "broken-header"),
        ({"a.safetensors": None, "b.safetensors": None, "pytorch_model.bin": b"x"}, "pickle-checkpoint"),
        ({"a.safetensors": None, "b.safetensors": None}, "no-weights"),
    ],
)
def test_broken_repositories_are_told_as_broken_folders_are(hub, tmp_path, change, reference):
    parts = {"a.safetensors": llama_tensors(2, head=False), "b.safetensors": {"lm_head.weight": ("BF16", (20, 8))}}
    offer(hub, write_sharded(tmp_path / "near", parts))
    hub.files = {name: data for name, data in (hub.files | change).items() if data is not None}
    assert refusal().reference == reference


def test_a_file_that_has_been_cut_off_on_the_hub(hub, tmp_path):
    offer(hub, write_checkpoint(tmp_path / "near"))
    hub.files = hub.files | {"model.safetensors": hub.files["model.safetensors"][:-10]}
    error = refusal()
    assert error.reference == "truncated-shard"
    assert "10 B are missing" in error.message


def test_a_connection_that_ends_within_a_header(hub):
    offer_shape(hub, "SmolLM2-135M")
    hub.cut_at = 10_000
    error = refusal()
    assert error.reference == "download-failed"
    assert "reading the headers of org/tiny broke off" in error.message


def test_offline_is_told_with_what_was_tried(hub, monkeypatch):
    offer_shape(hub, "Llama-2-7B")
    error = refusal(offline=True)
    assert (error.reference, error.rows[1].detail) == ("model-not-found", "not asked: offline")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal().rows[1].detail
    assert hub.fetched == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "127.0.0.1:9 cannot be reached" in refusal().rows[1].detail


def use_alias(monkeypatch, *, mirrored: bool) -> None:
    mirror = Mirror("tiny", "1.0", "tiny/tiny.gguf", "0" * 64, 1000) if mirrored else None
    alias = Alias("tiny:1", "org/tiny", "main", "mit", 1000, mirror)
    monkeypatch.setattr("llmrun.hub.names.find_alias", lambda name: alias if name == "tiny:1" else None)


def test_an_alias_is_read_from_its_original_on_the_hub(hub, monkeypatch, tmp_path):
    offer(hub, write_checkpoint(tmp_path / "near"))
    use_alias(monkeypatch, mirrored=True)
    spec = find_spec("tiny:1", notify=silent)
    assert (spec.name, spec.folder) == ("tiny:1", f"hf://org/tiny@{COMMIT}")


def test_a_mirrored_alias_that_the_hub_does_not_give_can_be_pulled(hub, monkeypatch):
    use_alias(monkeypatch, mirrored=True)
    hub.refusal = (404, "RepoNotFound")
    for error in (refusal("tiny:1"), refusal("tiny:1", offline=True)):
        assert error.reference == "model-not-found"
        assert "`llmrun pull tiny:1`" in (error.hint or "")
    use_alias(monkeypatch, mirrored=False)
    hub.refusal = (403, "GatedRepo")
    assert refusal("tiny:1").reference == "model-gated"


def test_names_that_nobody_knows():
    assert refusal("smolm2:135m").reference == "model-not-found"
    assert refusal("./nowhere").reference == "model-not-found"
    assert refusal("./no.gguf").reference == "gguf-unreadable"


@pytest.mark.parametrize("arch", ["llama", "gemma3", "phi3"])
def test_a_gguf_is_described_as_it_would_be_imported(arch, tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, arch, tiny_model(arch))
    before = find_spec(str(path), notify=silent)
    assert (before.folder, before.is_local) == (f"gguf://{path}", False)
    assert files_below(tmp_path) == [path]

    folder = resolve(str(path), notify=silent).folder
    after = find_spec(str(path), notify=silent)
    assert (after.folder, after.is_local) == (str(folder), True)
    assert anonymous(before) == anonymous(after)


def test_a_folder_is_described_without_the_hubs_library(tmp_path):
    folder = write_checkpoint(tmp_path / "near")
    code = (
        "import sys; from llmrun.hub import find_spec; assert find_spec(sys.argv[1], notify=print).is_local;"
        "print(*{'huggingface_hub', 'httpx', 'httpx2', 'numpy', 'torch', 'transformers', 'gguf'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
