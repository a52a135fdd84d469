"""Attention of a chunk of a prompt to a cache in fp16: the kernels beside what transformers asks of torch, in turns.

    python benchmarks/kernel_attention.py --threads 1 --runs 9 --processor-time

Milliseconds of one call. For torch, keys and values are made fp32 first, repeated for the heads that share them, and
masked where the chunk follows other tokens, as transformers does it. GFLOP/s count what causality leaves: 4 x heads x
head size x pairs of tokens, one of which sees the other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import add_threads, argument_parser, own_kernels, print_host, table, write_samples

SHAPES = ((32, 32, 128, 256, 256), (32, 32, 128, 256, 512), (32, 8, 128, 256, 512), (32, 8, 64, 256, 2048))


def by_torch(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``(1, H, T, D)`` over ``(1, H_kv, S, D)`` to the same as the query."""
    group, new, seen = query.shape[1] // keys.shape[1], query.shape[2], keys.shape[2]
    keys, values = (each.float().repeat_interleave(group, 1) if group > 1 else each.float() for each in (keys, values))
    mask = None if new == seen else torch.ones(new, seen, dtype=torch.bool).tril(seen - new)
    return torch.nn.functional.scaled_dot_product_attention(query, keys, values, mask, is_causal=mask is None)


def measure(calls: tuple[Callable[[], torch.Tensor], ...], runs: int, clock: Callable[[], float]) -> list[list[float]]:
    """Milliseconds of each, in turns; the first round is thrown away."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(runs + 1):
        for call, samples in zip(calls, found, strict=True):
            begin = clock()
            call()
            samples.append((clock() - begin) * 1e3)
    return [samples[1:] for samples in found]


def parse() -> argparse.Namespace:
    """What is asked."""
    parser = argument_parser(__doc__)
    add_threads(parser, runs=9)
    parser.add_argument("--processor-time", action="store_true", help="of all threads: for one, on a busy machine")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse()
    host = print_host(Path.cwd())
    kernels = own_kernels(args.threads)
    clock = time.process_time if args.processor_time else time.perf_counter
    rows, samples = [], {}
    for heads, kv_heads, size, new, seen in SHAPES:
        query = torch.randn(1, new, heads, size).transpose(1, 2)
        keys, values = torch.randn(2, 1, kv_heads, seen, size).half()
        calls = (
            lambda: kernels.attention(query[0], keys[0], values[0], size**-0.5),  # noqa: B023 - called at once
            lambda: by_torch(query, keys, values),  # noqa: B023
        )
        ours, theirs = measure(calls, args.runs, clock)
        name = f"{new} of {seen}, {heads} heads of {size} in {kv_heads} groups"
        samples[name] = [ours, theirs]
        operations = 4 * heads * size * (new * seen - new * (new - 1) / 2)
        middle = statistics.median(ours)
        rows.append([name, f"{middle:.1f}", f"{statistics.median(theirs):.1f}", f"{operations / middle / 1e6:.0f}"])
    print(table(["tokens", "kernel, ms", "torch, ms", "kernel, GFLOP/s"], rows))
    write_samples(args.json, {"host": host, "ms": samples})


if __name__ == "__main__":
    main()
