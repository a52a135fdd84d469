from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from fake_hub import COMMIT, running
from huggingface_hub import constants

from llmrun.errors import CheckpointError, DeviceError
from llmrun.hub import Origin, inventory, resolve
from llmrun.hub.hf_cache import HubId, parse_id
from llmrun.hub.huggingface import needed_files, unreachable

FILES = {
    "config.json": b"{}",
    "generation_config.json": b"{ }",
    "tokenizer.json": b"{  }",
    "model-00001-of-00002.safetensors": b"one",
    "model-00002-of-00002.safetensors": b"two",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "consolidated.safetensors": b"the same again",
    "pytorch_model.bin": b"a pickle",
    "original/model.safetensors": b"another copy",
    "README.md": b"words",
}
WANTED = set(FILES) - {"consolidated.safetensors", "pytorch_model.bin", "original/model.safetensors", "README.md"}


@pytest.fixture(autouse=True)
def _own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def point_at(endpoint, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def silent(line: str) -> None:
    pass


def test_ids():
    assert parse_id("org/name") == HubId("org/name", "main")
    assert parse_id("org/na.me-1@refs/pr/3") == HubId("org/na.me-1", "refs/pr/3")
    assert parse_id("name") is parse_id("a/b/c") is parse_id("../up") is parse_id("org/na me") is None


def test_only_what_a_run_needs_is_taken():
    assert set(needed_files(HubId("org/tiny"), list(FILES))) == WANTED
    both = ["model.safetensors", "model-00001-of-00001.safetensors", "config.json"]
    assert needed_files(HubId("org/tiny"), both) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("names", "reference", "hint"),
    [
        (["config.json", "pytorch_model.bin"], "pickle-checkpoint", "refs/pr/1"),
        (["tiny-Q4.gguf"], "no-weights", "llmrun pull ./tiny-Q4.gguf"),
        (["README.md"], "no-weights", None),
    ],
)
def test_a_repository_without_safetensors_is_refused(names, reference, hint):
    with pytest.raises(CheckpointError) as caught:
        needed_files(HubId("org/tiny"), names)
    assert caught.value.reference == reference
    assert (hint or "") in (caught.value.hint or "")


def test_a_model_is_downloaded_once_then_used_in_place_listed_and_removed(tmp_path, monkeypatch):
    said: list[str] = []
    with running(FILES) as hub:
        point_at(hub.endpoint, monkeypatch)
        first = resolve("org/tiny", notify=said.append)
        assert set(hub.fetched) == WANTED
        assert sorted(hub.fetched) == sorted(WANTED)  # each of them once
    assert (first.origin, first.revision) == (Origin.HUGGINGFACE, COMMIT)
    assert {path.name for path in first.folder.iterdir()} == WANTED
    assert first.folder.is_relative_to(tmp_path / "hub")
    assert resolve("org/tiny", notify=said.append) == first  # the hub is gone
    assert resolve(f"org/tiny@{COMMIT}", notify=said.append).folder == first.folder
    assert len(said) == 1
    [found] = inventory.installed()
    assert (found.name, found.source) == ("org/tiny", COMMIT)
    assert inventory.remove("org/tiny") == sum(len(FILES[name]) for name in WANTED)
    assert inventory.installed() == []


def test_an_incomplete_snapshot_is_not_used(monkeypatch):
    with running(FILES) as hub:
        point_at(hub.endpoint, monkeypatch)
        folder = resolve("org/tiny", notify=silent).folder
        shard = folder / "model-00002-of-00002.safetensors"
        shard.resolve().unlink()
        shard.unlink()
        with pytest.raises(CheckpointError) as caught:
            resolve("org/tiny", notify=silent, offline=True)
        assert caught.value.reference == "model-not-found"
        resolve("org/tiny", notify=silent)
        assert hub.fetched.count(shard.name) == 2
        assert hub.fetched.count("tokenizer.json") == 1


@pytest.mark.parametrize(
    ("refusal", "reference", "hint"),
    [
        ((403, "GatedRepo"), "model-gated", "HF_TOKEN"),
        ((404, "RepoNotFound"), "model-not-found", "spelling"),
        ((404, "RevisionNotFound"), "revision-not-found", ""),
        ((400, "BadRequest"), "download-failed", "llmrun pull org/tiny"),
    ],
)
def test_what_the_hub_refuses_is_told_in_its_own_words(refusal, reference, hint, monkeypatch):
    with running(FILES, refusal) as hub:
        point_at(hub.endpoint, monkeypatch)
        with pytest.raises((CheckpointError, DeviceError)) as caught:
            resolve("org/tiny", notify=silent)
    assert caught.value.reference == reference
    assert hint in (caught.value.hint or "")


def test_a_disk_without_room_is_told_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 3})())
    with running(FILES) as hub:
        point_at(hub.endpoint, monkeypatch)
        with pytest.raises(DeviceError) as caught:
            resolve("org/tiny", notify=silent)
        assert caught.value.reference == "disk-full"
        assert hub.fetched == []


def test_a_hub_that_cannot_be_reached_is_told_with_its_address(monkeypatch):
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(CheckpointError) as caught:
        resolve("org/tiny", notify=silent)
    assert caught.value.reference == "model-not-found"
    assert "127.0.0.1:9 cannot be reached" in caught.value.rows[1].detail


def test_a_hub_that_never_answers_is_given_up(monkeypatch):
    point_at("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr("llmrun.hub.huggingface._PROBE_TIMEOUT_S", 0.05)
    monkeypatch.setattr("llmrun.hub.huggingface._probe", lambda endpoint: time.sleep(1))
    assert "did not answer" in (unreachable() or "")


def test_offline_mode_of_the_library_is_respected(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with running(FILES) as hub:
        point_at(hub.endpoint, monkeypatch)
        with pytest.raises(CheckpointError, match="not on this disk") as caught:
            resolve("org/tiny", notify=silent)
        assert hub.fetched == []
    assert "HF_HUB_OFFLINE" in caught.value.rows[1].detail


def test_a_folder_of_the_users_is_never_deleted(tmp_path: Path):
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(Exception, match="is yours") as caught:
        inventory.remove(str(mine))
    assert caught.value.exit_code == 2
    assert mine.is_dir()
