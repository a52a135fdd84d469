"""What belongs to a checkpoint beside its weights: copied to the quantised one, with the format noted in its config."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from llmrun.hub.store import RECORD_FILE
from llmrun.units import MIB

CONFIG = "config.json"
QUANT_METHOD = "llmrun"
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".gguf")
_WEIGHTS_OF_OTHERS = (".h5", ".msgpack", ".onnx", ".onnx_data", ".npz")
_OURS = (CONFIG, RECORD_FILE, "tensors.json")
_OF_FORMER_WEIGHTS = ("quantize_config.json", "quant_config.json", "recipe.yaml")  # of GPTQ, AWQ and LLM Compressor
_MAX_BYTES = 256 * MIB  # a tokenizer takes 20 MiB at most; what is larger is no companion


def copy_companions(source: Path, target: Path) -> None:
    """Copy tokenizer, generation config, templates, licence: every file of the folder that holds no weights."""
    for path in source.iterdir():
        if _is_companion(path):
            shutil.copyfile(path, target / path.name)


def write_config(source: Path, target: Path, format_name: str) -> None:
    """The model's config.json with ``quantization_config`` that names the method and the format."""
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    config.pop("compression_config", None)
    config["quantization_config"] = {"quant_method": QUANT_METHOD, "format": format_name}
    (target / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_companion(path: Path) -> bool:
    if (
        path.name.startswith(".")
        or path.name in (*_OURS, *_OF_FORMER_WEIGHTS)
        or path.name.endswith(_WEIGHTS + _WEIGHTS_OF_OTHERS)
    ):
        return False
    return path.is_file() and path.stat().st_size <= _MAX_BYTES
