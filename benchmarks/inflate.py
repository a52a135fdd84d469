"""Make a big checkpoint that answers as a small one does, so that an answer from more than memory can be checked.

    python benchmarks/inflate.py smollm2:135m BIG --intermediate 60000 --extra-layers 8      # 8.0 GB

For decoders with the tensors of Llama (Llama, Mistral, Qwen2, Qwen3). Two changes leave its function as it is:
--intermediate N   widens every MLP: the new rows of gate_proj and up_proj are random, but the new columns of down_proj
                   are zero (equal up to the rounding of a longer sum);
--extra-layers K   adds K layers, spread evenly, whose o_proj and down_proj are zero: the residual goes through them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from checkpoint_writer import CheckpointWriter, Noise
from common import gib, model_folder

from llmrun.checkpoint import read_spec
from llmrun.runtime.sequential import SequentialWeights

LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Widening:
    """How a tensor of an MLP becomes wider."""

    extra: int
    noise: Noise

    def apply(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as the big checkpoint has it."""
        if not self.extra or ".mlp." not in f".{name}" or not name.endswith("weight"):
            return tensor
        if "down_proj" in name:
            return torch.cat([tensor, torch.zeros(tensor.shape[0], self.extra, dtype=tensor.dtype)], dim=1)
        return torch.cat([tensor, self.noise.tensor(self.extra, tensor.shape[1])])


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All of a small checkpoint, in bf16; of packed weights (a GGUF file) the numbers that they stand for."""
    spec = read_spec(folder)
    found: dict[str, torch.Tensor] = {}
    for unit in spec.units:
        with SequentialWeights(spec).acquire(unit.name) as weights:
            found.update({name: tensor.to(torch.bfloat16) for name, tensor in weights.items()})
    return found


def inflated(small: dict[str, torch.Tensor], old_of: list[int], wide: Widening) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the big checkpoint; ``old_of`` has for each layer the old one that it is, or is a copy of."""
    by_layer: dict[int, list[tuple[str, torch.Tensor]]] = {}
    for name, tensor in small.items():
        if match := LAYER.match(name):
            by_layer.setdefault(int(match[1]), []).append((match[2], tensor))
        else:
            yield name, tensor.clone()
    for new, old in enumerate(old_of):
        is_extra = new > 0 and old == old_of[new - 1]
        for name, tensor in sorted(by_layer[old], key=lambda item: item[0]):
            big = wide.apply(name, tensor)
            passes = is_extra and ("o_proj" in name or "down_proj" in name)
            yield f"model.layers.{new}.{name}", torch.zeros_like(big) if passes else big.clone()


def big_config(config: dict[str, Any], old_of: list[int], width: int) -> dict[str, Any]:
    """The config that goes with them."""
    changed = {"num_hidden_layers": len(old_of), "intermediate_size": width, "dtype": "bfloat16"}
    if config.get("layer_types"):
        changed["layer_types"] = [config["layer_types"][old] for old in old_of]
    return {**config, **changed}


def main() -> int:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", help="folder, alias or hub id")
    parser.add_argument("big", type=Path, help="folder to write")
    parser.add_argument("--intermediate", type=int, default=0, help="new width of every MLP (default: as it is)")
    parser.add_argument("--extra-layers", type=int, default=0)
    args = parser.parse_args()
    small = model_folder(args.small)
    config = json.loads((small / "config.json").read_text())
    n_layers, narrow = config["num_hidden_layers"], config["intermediate_size"]
    width = args.intermediate or narrow
    if width < narrow:
        parser.error(f"the model's MLP is {narrow} wide already")
    total = n_layers + args.extra_layers
    old_of = [index * n_layers // total for index in range(total)]
    with CheckpointWriter(args.big, big_config(config, old_of, width), small) as writer:
        for name, tensor in inflated(tensors(small), old_of, Widening(width - narrow, Noise())):
            writer.add(name, tensor)
    print(f"{args.big}: {total} layers, MLP {width}, {gib(writer.nbytes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
