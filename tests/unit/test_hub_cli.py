"""The commands pull, list and rm, called as the app calls them."""

from __future__ import annotations

import json

import pytest
import typer
from huggingface_hub import constants
from typer.testing import CliRunner

from llmrun.cli.list import list_models
from llmrun.cli.pull import pull
from llmrun.cli.rm import rm
from llmrun.errors import UsageError
from llmrun.hub.model import Origin
from llmrun.hub.store import Record, build, models_folder


@pytest.fixture(autouse=True)
def _own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder():
    def fill(folder):
        for name in ("config.json", "tokenizer.json"):
            (folder / name).write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(2048))

    return build(models_folder() / "tiny-1", Record("tiny", Origin.GGUF, "/there/tiny.gguf"), fill)


def run(*arguments: str, answer: str | None = None):
    app = typer.Typer()
    app.command("pull")(pull)
    app.command("list")(list_models)
    app.command("rm")(rm)
    return CliRunner().invoke(app, list(arguments), input=answer)


def test_pull_prints_the_folder(folder):
    result = run("pull", "tiny")
    assert (result.exit_code, result.stdout) == (0, f"{folder}\n")


def test_list_on_a_bare_disk_says_how_to_begin():
    result = run("list")
    assert result.stdout.startswith("no model is on this disk yet; `llmrun pull`")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["smollm2:135m", "~257.5", "MiB", "no", "apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct"] in rows


def test_list_shows_what_is_there(folder):
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["MODEL", "SIZE", "ORIGIN", "SOURCE"]
    assert lines[1].split() == ["tiny", "2.1", "KiB", "gguf", "/there/tiny.gguf"]


def test_list_as_json(folder):
    document = json.loads(run("list", "--json").stdout)
    assert document["schema"] == 1
    [model] = document["models"]
    assert (model["name"], model["origin"], model["folder"]) == ("tiny", "gguf", str(folder))
    assert model["size_bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert document["aliases"][0]["name"] == "smollm2:135m"
    assert document["aliases"][0]["local"] is False


def test_rm_wants_a_confirmation(folder):
    error = run("rm", "tiny").exception
    assert isinstance(error, UsageError)
    assert error.reference == "confirmation-needed"
    assert folder.exists()


def test_rm_deletes(folder):
    result = run("rm", "tiny", "--yes")
    assert result.exit_code == 0
    assert result.stderr == "freed 2.1 KiB\n"
    assert not folder.exists()
