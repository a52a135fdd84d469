import shutil
from pathlib import Path

import pytest


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
