"""A disk that fills while a model is imported or fetched: told, and nothing is left of the model."""

import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hub import running
from gguf_factory import tiny_model, write_gguf
from run_cli import Done, llmrun, refused


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, "llama", tiny_model("llama"))
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def no_larger_than(nbytes: int) -> Callable[[], None]:
    """Writes of the child past ``nbytes`` of a file fail, as they do on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))


def pull_from_hub(folder: Path, tiny: Path, preexec: Callable[[], None] | None = None) -> Done:
    with running({path.name: path.read_bytes() for path in tiny.iterdir()}) as hub:
        return llmrun(
            "pull", "org/tiny", preexec=preexec, HF_HOME=folder, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE=0,
            HF_HUB_DISABLE_XET=1, HTTP_PROXY="", http_proxy="", ALL_PROXY="", all_proxy="",
        )  # fmt: skip


def test_no_room_is_known_before_an_import(gguf: Path, small_disk: Path) -> None:
    lines = refused(llmrun("pull", gguf, LLMRUN_CACHE=small_disk), 5, "disk-full")
    assert "short by" in lines[-2]
    assert files(small_disk) == []


def test_no_room_is_known_before_a_download(folder: Path, small_disk: Path) -> None:
    (folder / "model.safetensors").write_bytes(bytes(2_000_000))
    lines = refused(pull_from_hub(small_disk, folder), 5, "disk-full")
    assert "short by" in lines[-2]
    assert files(small_disk) == []


def test_no_room_in_the_middle_of_an_import(gguf: Path, tmp_path: Path) -> None:
    done = llmrun("pull", gguf, LLMRUN_CACHE=tmp_path, preexec=no_larger_than(4_000))
    imports, *error = done.stderr.splitlines(keepends=True)
    assert imports.startswith("importing tiny.gguf")
    done.stderr = "".join(error)
    refused(done, 5, "disk-full")
    assert files(tmp_path) == []


def test_no_room_in_the_middle_of_a_download(folder: Path, tmp_path: Path) -> None:
    done = pull_from_hub(tmp_path / "hf", folder, no_larger_than(100_000))
    downloads, *error = done.stderr.splitlines(keepends=True)
    assert downloads.startswith("downloading org/tiny")
    done.stderr = "".join(error)
    refused(done, 5, "disk-full")
    assert not [path for path in files(tmp_path / "hf") if path.name == "model.safetensors"]
