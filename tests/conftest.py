import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """What the tests see is not to depend on how they were started, nor on a developer's own settings.

    A shell starts what runs in its background with SIGINT ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["LLMRUN_CONFIG"] = ""  # no settings file
    os.environ["OMP_NUM_THREADS"] = "1"  # torch's: matrices here are done before a second thread is awake


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny tokenizer; copy it before you change it."""
    from tiny_tokenizer import build_tokenizer

    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A tiny random Llama with a tokenizer of the same vocabulary; ``folder`` is a copy that may be changed."""
    from tiny_model import FAMILIES, save

    folder = shutil.copytree(tokenizer_folder, tmp_path_factory.mktemp("checkpoint") / "tiny")
    return save(FAMILIES["llama"].build(vocab_size=320, eos_token_id=319), folder)


@pytest.fixture
def folder(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A tiny random Llama of this test's own."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "tiny")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """For what has to do with the number of torch's threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
