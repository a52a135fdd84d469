from __future__ import annotations

import json

import pytest

from llmrun.hub import store
from llmrun.hub.model import Origin
from llmrun.hub.store import Record, build, find, imported, models_folder, safe_name

RECORD = Record("tiny", Origin.GGUF, "/somewhere/tiny.gguf")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path))


def fill(folder):
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


def test_the_environment_says_where_models_lie(tmp_path):
    assert models_folder() == tmp_path / "models"
    assert models_folder({}).parts[-2:] == ("llmrun", "models")


def test_a_model_appears_in_one_step():
    target = models_folder() / "tiny-1"

    def watch(folder):
        fill(folder)
        assert folder.parent == target.parent
        assert not target.exists()
        assert list(imported()) == []

    build(target, RECORD, watch)
    assert find(target) == target
    assert list(imported()) == [(RECORD, target)]
    assert [path.name for path in target.parent.iterdir()] == ["tiny-1"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_failure_leaves_nothing():
    def fail(folder):
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(models_folder() / "tiny-1", RECORD, fail)
    assert list(models_folder().iterdir()) == []


def test_of_two_that_make_the_same_model_the_first_wins():
    target = models_folder() / "tiny-1"

    def overtaken(folder):
        fill(folder)
        build(target, RECORD, lambda inner: (fill(inner), (inner / "first").touch()))

    build(target, RECORD, overtaken)
    assert (target / "first").exists()
    assert [path.name for path in models_folder().iterdir()] == ["tiny-1"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not():
    root = models_folder()
    dead = root / ".partial-tiny-dead"
    dead.mkdir(parents=True)
    (dead / "model.safetensors").touch()
    (root / ".partial-tiny-dead.lock").touch()

    def other_starts(folder):
        fill(folder)
        build(root / "other", RECORD, fill)
        assert folder.exists()

    build(root / "tiny-1", RECORD, other_starts)
    assert sorted(path.name for path in root.iterdir()) == ["other", "tiny-1"]


def test_a_record_that_cannot_be_read_is_no_model():
    for number, content in enumerate(
        ["", "[]", json.dumps({"name": "x", "origin": "moon", "source": "", "schema": 1})]
    ):
        folder = models_folder() / f"bad-{number}"
        folder.mkdir(parents=True)
        (folder / "llmrun.json").write_text(content)
    assert list(imported()) == []


def test_only_our_own_folders_are_deleted(tmp_path):
    with pytest.raises(AssertionError):
        store.remove(tmp_path)
    assert tmp_path.exists()


def test_names_of_folders():
    assert safe_name("smollm2:135m") == "smollm2-135m"
    assert safe_name("../../etc") == "etc"
    assert safe_name("???") == "model"
