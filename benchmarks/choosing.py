"""Which model for which machine: what `llmrun plan` predicts for typical models on every preset.

    python benchmarks/choosing.py --json choosing.json

Each cell is one `llmrun plan MODEL --dry-run --hardware PRESET --json`, with its defaults: 4,096 tokens of context, a
prompt of 512 tokens, an answer of 256. The models are headers alone: real sizes, whose weights are holes in a file. No
model is run and nothing is measured; the presets are estimated from data sheets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from common import argument_parser, gib, note, table, write_samples
from help_time import command

from llmrun import __version__
from llmrun.hardware.presets import preset_names

BF16_BYTES = 2


@dataclass(frozen=True)
class Shape:
    """The sizes of a dense decoder-only model. Biases and norms of heads are left out: a few KiB a layer."""

    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    context_tokens: int
    tied: bool = False

    def config(self) -> dict[str, Any]:
        """What config.json says."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "bfloat16",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.context_tokens,
            "tie_word_embeddings": self.tied,
        }

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes in the order of execution."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        yield "model.embed_tokens.weight", (self.vocab_size, hidden)
        for layer in range(self.n_layers):
            prefix = f"model.layers.{layer}"
            yield f"{prefix}.input_layernorm.weight", (hidden,)
            yield f"{prefix}.self_attn.q_proj.weight", (queries, hidden)
            yield f"{prefix}.self_attn.k_proj.weight", (keys, hidden)
            yield f"{prefix}.self_attn.v_proj.weight", (keys, hidden)
            yield f"{prefix}.self_attn.o_proj.weight", (hidden, queries)
            yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
            yield f"{prefix}.mlp.gate_proj.weight", (inner, hidden)
            yield f"{prefix}.mlp.up_proj.weight", (inner, hidden)
            yield f"{prefix}.mlp.down_proj.weight", (hidden, inner)
        yield "model.norm.weight", (hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocab_size, hidden)


SHAPES: Mapping[str, Shape] = {  # from the config.json of each
    "SmolLM2-135M": Shape(576, 1536, 30, 9, 3, 64, 49152, 8192, tied=True),
    "Llama-3.2-1B": Shape(2048, 8192, 16, 32, 8, 64, 128256, 131072, tied=True),
    "Llama-3.2-3B": Shape(3072, 8192, 28, 24, 8, 128, 128256, 131072, tied=True),
    "Llama-3.1-8B": Shape(4096, 14336, 32, 32, 8, 128, 128256, 131072),
    "Llama-2-13B": Shape(5120, 13824, 40, 40, 40, 128, 32000, 4096),
    "Qwen3-32B": Shape(5120, 25600, 64, 64, 8, 128, 151936, 40960),
    "Llama-3.1-70B": Shape(8192, 28672, 80, 64, 8, 128, 128256, 131072),
}


@dataclass(frozen=True)
class Cell:
    """What is predicted for a model on a machine. ``error`` is the reference where there is no plan."""

    model: str
    preset: str
    weight_bytes: int = 0
    decode_tokens_per_s: float = 0.0
    ttft_s: float = 0.0
    later_ttft_s: float = 0.0
    disk_bytes_per_token: int = 0
    from_ram: bool = False
    bottleneck: str = ""
    error: str = ""

    @property
    def mark(self) -> str:
        """``D`` where a token reads from disk, else ``R`` where a GPU's machine keeps a part of the weights in RAM."""
        return " D" if self.disk_bytes_per_token else " R" if self.from_ram else ""

    def decode(self) -> str:
        """Tokens a second."""
        return self.error or f"{number(self.decode_tokens_per_s)}{self.mark}"

    def first_token(self) -> str:
        """Seconds to the first token, of the first request and of a later one."""
        return self.error or f"{number(self.ttft_s)} / {number(self.later_ttft_s)}"


def number(value: float) -> str:
    """Two digits that mean something; more are not known."""
    return f"{value:.0f}" if value >= 10 else f"{value:#.2g}".rstrip(".")


def write_headers(shape: Shape, folder: Path) -> None:
    """A checkpoint whose weights are a hole: the size of the real one, some kilobytes on the disk."""
    folder.mkdir()
    folder.joinpath("config.json").write_text(json.dumps(shape.config()))
    tensors = list(shape.tensors())
    ends = [0]
    for _, dims in tensors:
        ends.append(ends[-1] + prod(dims) * BF16_BYTES)
    header = {
        name: {"dtype": "BF16", "shape": dims, "data_offsets": span}
        for (name, dims), span in zip(tensors, pairwise(ends), strict=True)
    }
    text = json.dumps(header).encode()
    file = folder / "model.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + ends[-1])


def plan(model: str, preset: str, folder: Path) -> Cell:
    """Ask the command."""
    args = [*command(), "plan", model, "--dry-run", "--hardware", preset, "--json"]
    found = subprocess.run(args, cwd=folder, capture_output=True, text=True, check=False)
    if found.returncode:
        return Cell(model, preset, error=found.stderr.partition("error: ")[2].partition("\n")[0])
    return cell(preset, json.loads(found.stdout))


def cell(preset: str, report: dict[str, Any]) -> Cell:
    """The figures of a `llmrun plan --json`."""
    predicted = report["prediction"]
    return Cell(
        model=report["model"]["name"],
        preset=preset,
        weight_bytes=report["model"]["weight_bytes"],
        decode_tokens_per_s=predicted["decode_tokens_per_s"],
        ttft_s=predicted["ttft_s"],
        later_ttft_s=predicted["warm_ttft_s"],
        disk_bytes_per_token=predicted["bytes_per_token"].get("disk", 0),
        from_ram=len(report["plan"]["memory"]) > 1 and "cpu" in predicted["bytes_per_token"],
        bottleneck=predicted["bottleneck"],
    )


def main() -> int:
    """Plan and print."""
    args = argument_parser(__doc__).parse_args()
    presets = preset_names()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model, shape in SHAPES.items():
            write_headers(shape, folder / model)
        cells = []
        for model in SHAPES:
            note(model)
            cells.append([plan(model, preset, folder) for preset in presets])
    sizes = [gib(max(one.weight_bytes for one in row)) for row in cells]
    print(f"llmrun {__version__}; predicted, not measured\n")
    for what, told in (("decode, tok/s", Cell.decode), ("first token, s: at first / later", Cell.first_token)):
        rows = [[row[0].model, size, *map(told, row)] for row, size in zip(cells, sizes, strict=True)]
        print(table([what, "on disk", *presets], rows), end="\n\n")
    write_samples(args.json, {"version": __version__, "cells": [asdict(one) for row in cells for one in row]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
