"""How fast plain weights are rounded to each format as they come in (`--format`): the kernels, and torch's search.

    python benchmarks/rounding_speed.py --threads 1 --runs 7

A matrix of 4096 x 4096 in bf16, rounded `runs` times in turns; GB of bf16 that go in by a second of processor time, so
that waiting and the number of threads hardly count: the median, the least and the most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import argument_parser, print_host, spread, table, write_samples

from llmrun.formats import FORMATS, WeightFormat
from llmrun.kernels.library import find_library
from llmrun.kernels.linear import Kernels
from llmrun.quantize.rounding import quantise_by_torch

ROWS = COLUMNS = 4096
TORCH_ROWS = 512  # of them, since that is slow


def gb_per_s(work: Callable[[], object], nbytes: int) -> float:
    """Of one call, by the processor time of all threads."""
    began_s = time.process_time()
    work()
    return nbytes / (time.process_time() - began_s) / 1e9


def main() -> None:
    """Measure, and print a row for each format."""
    parser = argument_parser(__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print_host(Path.cwd())
    kernels, plain = Kernels(find_library(), args.threads), FORMATS["BF16"]
    weights = (torch.randn(ROWS, COLUMNS) * 0.02).bfloat16()
    some, importance = weights[:TORCH_ROWS], torch.rand(COLUMNS) + 0.01
    rows, samples = [], {}
    for fmt in (fmt for fmt in FORMATS.values() if fmt.block_weights > 1):
        target = torch.empty(ROWS, fmt.row_bytes(COLUMNS), dtype=torch.uint8)

        def by_kernels(
            counts: torch.Tensor | None, fmt: WeightFormat = fmt, target: torch.Tensor = target
        ) -> Callable[[], object]:
            return lambda: kernels.rounded(weights.view(torch.uint8), plain, COLUMNS, fmt, target, counts)

        by_kernels(None)()
        own, weighted, torchs = [], [], []
        for _ in range(args.runs):
            own.append(gb_per_s(by_kernels(None), 2 * weights.numel()))
            weighted.append(gb_per_s(by_kernels(importance), 2 * weights.numel()))
            torchs.append(gb_per_s(lambda fmt=fmt: quantise_by_torch(fmt, some), 2 * some.numel()))
        rows.append((fmt.name, spread(own), spread(weighted), spread(torchs)))
        samples[fmt.name] = {"kernels": own, "by importance": weighted, "torch": torchs}
    write_samples(args.json, samples)
    print(table(("format", f"kernels ({kernels.variant}), GB/s", "by importance, GB/s", "torch, GB/s"), rows))


if __name__ == "__main__":
    main()
