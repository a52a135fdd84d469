import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hosts import speeds

from llmrun.hardware import probe
from llmrun.hardware.host_key import host_key
from llmrun.hardware.speeds_cache import store_speeds, with_disk


@pytest.fixture(scope="session")
def wide_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A random Llama of 77 MiB that answers with the letters a and b for ever; copy it before you change it."""
    import torch
    from tiny_model import FAMILIES, save, say_only
    from tokenizers import Tokenizer

    folder = shutil.copytree(tokenizer_folder, tmp_path_factory.mktemp("checkpoint") / "wide")
    letters = Tokenizer.from_file(str(folder / "tokenizer.json"))
    wide = {"hidden_size": 256, "intermediate_size": 4096, "num_hidden_layers": 12, "max_position_embeddings": 8192}
    model = FAMILIES["llama"].build(vocab_size=320, eos_token_id=319, **wide)
    say_only(model, letters.token_to_id("a"), letters.token_to_id("b"))
    return save(model, folder, dtype=torch.bfloat16)


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The environment of a run on this host after it was measured, or so it seems; without its GPUs, if it has any.

    With RAM enough for every model here, whatever else takes memory at the time: by default a run is planned within
    what is free.
    """
    cache = tmp_path_factory.mktemp("measured")
    profile = with_disk(probe(), cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMRUN_CACHE", str(cache))
        assert store_speeds(profile, replace(speeds(), host=host_key(profile)))
    return {"LLMRUN_CACHE": cache, "LLMRUN_VRAM": 0, "LLMRUN_RAM": "4GiB", "LLMRUN_MEASURE_S": 0}
