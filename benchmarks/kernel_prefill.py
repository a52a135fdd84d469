"""Many tokens times the matrices of a layer: the integer kernels against what bf16 weights take and torch's int8
product, in turns.

    python benchmarks/kernel_prefill.py --tokens 16 64 256 512 --threads 2 --runs 7

GOP/s = 2 x rows x columns x tokens / seconds, of calls that take fp32 activations and give fp32, as a model's layers
have them: rounding the activations, unpacking the weights and, for torch, the conversions are within. Each call has
another matrix, of enough that they do not fit into the caches together; the ways of computing take turns. The last
column is what a model of 6.6e9 weights in its layers (Llama-2-7B) could read of a prompt if it did nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import add_threads, argument_parser, own_kernels, print_host, spread, table, write_samples

from llmrun.formats import FORMATS, WeightFormat
from llmrun.kernels.linear import Kernels
from llmrun.kernels.multiply import by_tiles, multiply
from llmrun.kernels.scales import Scales

LLAMA_2_7B_OPERATIONS = 2 * 6.6e9  # a token, in the matrices of its layers
CACHE_BYTES = 96 << 20  # more than the caches of most machines
Product = Callable[[torch.Tensor, int], torch.Tensor]


def packed_product(kernels: Kernels, fmt: WeightFormat, rows: int, columns: int) -> Product:
    """x W^T by our kernel. Weights of any bytes, with 2^-7 for whatever is read as a scale of 16 bits."""
    count = 1 + CACHE_BYTES // (rows * fmt.row_bytes(columns))
    weights = [torch.randint(0, 256, (rows, fmt.row_bytes(columns)), dtype=torch.uint8) for _ in range(count)]
    scale = torch.tensor([2.0**-7]).half().view(torch.uint8)
    for weight in weights:
        blocks = weight.view(rows, -1, fmt.block_bytes)
        at = 208 if fmt.name == "Q6_K" else 0
        blocks[..., at : at + 2] = scale
        if fmt.name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K"):
            blocks[..., 2:4] = scale
    return lambda x, call: kernels.linear(x, weights[call % count], fmt, columns)


def bf16_product(rows: int, columns: int, *, fine: bool) -> Product:
    """What is made of bf16 weights: tiles of them as floats, or with the activations rounded to bf16."""
    count = 1 + CACHE_BYTES // (2 * rows * columns)
    weights = [torch.randn(rows, columns).bfloat16().view(torch.uint8) for _ in range(count)]
    return lambda x, call: multiply(x, weights[call % count], FORMATS["BF16"], columns, fine=fine)


def float8_products(kernels: Kernels, rows: int, columns: int) -> dict[str, Product]:
    """8-bit floats in blocks of 128 x 128: by the kernel for a few tokens, and in tiles of floats."""
    count, fmt = 1 + CACHE_BYTES // (rows * columns), FORMATS["F8_E4M3"]
    weights = [torch.randint(0, 127, (rows, columns), dtype=torch.uint8) for _ in range(count)]
    scales = Scales(torch.rand(-(-rows // 128), -(-columns // 128)), 128, 128)
    return {
        "F8_E4M3": lambda x, call: kernels.linear(x, weights[call % count], fmt, columns, scales=scales),
        "F8_E4M3 in tiles": lambda x, call: by_tiles(x, weights[call % count], fmt, columns, scales),
    }


def int8_product(rows: int, columns: int) -> Product:
    """torch's own int8 product with a scale for each row and token: what groups of 32 cost is not in it."""
    count = 1 + CACHE_BYTES // (rows * columns)
    weights = [torch.randint(-127, 128, (rows, columns), dtype=torch.int8) for _ in range(count)]
    row_scale = torch.rand(rows)

    def multiply(x: torch.Tensor, call: int) -> torch.Tensor:
        scale = x.abs().amax(1, keepdim=True) / 127
        q = torch.round(x / scale).to(torch.int8)
        return torch._int_mm(q, weights[call % count].T).float() * scale * row_scale

    return multiply


def measure(
    products: dict[str, Product], x: torch.Tensor, runs: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each call by that clock; every other round goes backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in products}
    for run in range(-1, runs):  # the first is thrown away
        for name in list(products)[:: 1 if run % 2 else -1]:
            begin = clock()
            products[name](x, run + 1)
            if run >= 0:
                seconds[name].append(clock() - begin)
    return seconds


def parse() -> argparse.Namespace:
    """What is asked."""
    parser = argument_parser(__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256, 512])
    parser.add_argument("--formats", nargs="*", default=[each.name for each in FORMATS.values() if not each.is_plain])
    parser.add_argument("--rows", type=int, default=11008)
    parser.add_argument("--columns", type=int, default=4096)
    add_threads(parser, runs=7)
    parser.add_argument("--processor-time", action="store_true", help="of all threads: for one, on a busy machine")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse()
    host = print_host(Path.cwd())
    kernels = own_kernels(args.threads)
    print(f"{args.rows} x {args.columns}, {args.threads} threads, {kernels.variant}", flush=True)
    products = {name: packed_product(kernels, FORMATS[name], args.rows, args.columns) for name in args.formats}
    products |= float8_products(kernels, args.rows, args.columns)
    products["BF16"] = bf16_product(args.rows, args.columns, fine=True)
    products["BF16, states in bf16"] = bf16_product(args.rows, args.columns, fine=False)
    products["torch int8"] = int8_product(args.rows, args.columns)
    clock = time.process_time if args.processor_time else time.perf_counter
    rows, samples = [], {}
    for tokens in args.tokens:
        operations = 2 * args.rows * args.columns * tokens
        seconds = measure(products, torch.randn(tokens, args.columns), args.runs, clock)
        samples[tokens] = seconds
        for name, each in seconds.items():
            rates = [operations / second / 1e9 for second in each]
            prompt = statistics.median(rates) * 1e9 / LLAMA_2_7B_OPERATIONS
            rows.append([str(tokens), name, spread(rates, ".0f"), f"{prompt:.1f}"])
    print(table(["tokens", "weights", "GOP/s", "7B tok/s"], rows))
    write_samples(args.json, {"host": host, "seconds": samples})


if __name__ == "__main__":
    main()
