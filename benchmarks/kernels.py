"""A few tokens times the matrices of a layer: how fast kernels read weights, beside torch and a plain read, in turns.

    python benchmarks/kernels.py --tokens 1 2 4 8 --threads 2 --runs 9 [--attention 512 4096]

GB/s = bytes of the weights / seconds, of calls that take fp32 activations and give fp32. A sample is one pass over more
matrices than caches hold; the ways of computing take turns, and so does adding up as many bytes with torch ("read"),
which is what the memory gives at that moment: "of read" is the median of the quotients of the same turn. Integer
weights meet 8 bits of the activations, as llama.cpp has it, and 16, as llmrun has it by default. "torch bf16" is
oneDNN's product with its conversions; "torch fp32" reads twice the bytes. With --attention also the keys and values of
that many tokens, 32 heads in 8 groups of 128, for one new token.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from common import add_threads, argument_parser, own_kernels, print_host, ratios, spread, table, write_samples

from llmrun.formats import FORMATS, WeightFormat
from llmrun.kernels.linear import Kernels

PASS_BYTES = 256 << 20  # of one sample: more than the caches of most machines
KV_HEADS, GROUP, HEAD_DIM = 8, 4, 128
Pass = Callable[[], int]  # computes once over all of its matrices; the bytes that it read


def matrices(fmt: WeightFormat, rows: int, columns: int) -> list[torch.Tensor]:
    """Enough matrices of any numbers between -2 and 2, none of them infinite."""
    count = 1 + PASS_BYTES // (rows * fmt.row_bytes(columns))
    high = 0x40 if fmt.is_plain else 0x20  # the highest byte of a number or of a block's scale
    return [torch.randint(0, high, (rows, fmt.row_bytes(columns)), dtype=torch.uint8) for _ in range(count)]


def own_pass(kernels: Kernels, name: str, x: torch.Tensor, rows: int, *, fine: bool = False) -> Pass:
    """The kernels' product with weights of a format; of integers, ``fine`` meets 16 bits of `x` instead of 8."""
    fmt, columns = FORMATS[name], x.shape[1]
    weights = matrices(fmt, rows, columns)

    def multiply() -> int:
        for weight in weights:
            kernels.linear(x, weight, fmt, columns, fine=fine)
        return sum(weight.numel() for weight in weights)

    return multiply


def torch_pass(name: str, dtype: torch.dtype, x: torch.Tensor, rows: int) -> Pass:
    """torch's product with plain weights."""
    weights = [weight.view(dtype) for weight in matrices(FORMATS[name], rows, x.shape[1])]

    def multiply() -> int:
        for weight in weights:
            torch.nn.functional.linear(x.to(dtype), weight).float()
        return sum(weight.nbytes for weight in weights)

    return multiply


def read_pass() -> Pass:
    """Bytes that are added up as whole numbers: as fast as torch can read."""
    numbers = torch.ones(PASS_BYTES // 8, dtype=torch.int64)

    def read() -> int:
        numbers.sum()
        return numbers.nbytes

    return read


def attention_pass(kernels: Kernels, tokens: int, dtype: torch.dtype, own: bool) -> Pass:
    """One new token to so many in a cache, by the kernels or by torch, for which a group's heads are queries."""
    count = 1 + PASS_BYTES // (2 * KV_HEADS * tokens * HEAD_DIM * dtype.itemsize)
    caches = [torch.randn(2, KV_HEADS, tokens, HEAD_DIM).to(dtype) for _ in range(count)]
    query = torch.randn(KV_HEADS * GROUP, 1, HEAD_DIM)

    def attend() -> int:
        for keys, values in caches:
            if own:
                kernels.attention(query, keys, values, HEAD_DIM**-0.5)
            else:
                groups = query.view(1, KV_HEADS, GROUP, HEAD_DIM).to(dtype)
                torch.nn.functional.scaled_dot_product_attention(groups, keys[None], values[None])
        return sum(cache.nbytes for cache in caches)

    return attend


def measure(passes: dict[str, Pass], runs: int) -> dict[str, list[float]]:
    """GB/s of each pass; every other round goes backwards, and the first is thrown away."""
    rates: dict[str, list[float]] = {name: [] for name in passes}
    for run in range(-1, runs):
        for name in list(passes)[:: 1 if run % 2 else -1]:
            begin = time.perf_counter()
            nbytes = passes[name]()
            if run >= 0:
                rates[name].append(nbytes / 1e9 / (time.perf_counter() - begin))
    return rates


def rows_of(what: str, rates: dict[str, list[float]]) -> list[Sequence[str]]:
    """The rows of a table for what was measured together."""
    read = rates["read"]
    return [
        [what, name, spread(each, ".1f"), f"{statistics.median(ratios(each, read)):.2f}"]
        for name, each in rates.items()
    ]


def parse() -> argparse.Namespace:
    """What is asked."""
    parser = argument_parser(__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--attention", type=int, nargs="*", default=[], metavar="TOKENS")
    parser.add_argument("--rows", type=int, default=11008)
    parser.add_argument("--columns", type=int, default=4096)
    add_threads(parser, runs=9)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse()
    host = print_host(Path.cwd())
    kernels = own_kernels(args.threads)
    print(f"{args.rows} x {args.columns}, {args.threads} threads, {kernels.variant}", flush=True)
    measured: dict[str, dict[str, list[float]]] = {}
    for tokens in args.tokens:
        x = torch.randn(tokens, args.columns)
        passes = {"read": read_pass()}
        passes |= {name: own_pass(kernels, name, x, args.rows) for name in args.formats}
        integers = [name for name in args.formats if not FORMATS[name].is_plain]
        passes |= {f"{name}, 16 bits": own_pass(kernels, name, x, args.rows, fine=True) for name in integers}
        passes["torch bf16"] = torch_pass("BF16", torch.bfloat16, x, args.rows)
        passes["torch fp32"] = torch_pass("F32", torch.float32, x, args.rows)
        measured[f"tokens {tokens}"] = measure(passes, args.runs)
    for tokens in args.attention:
        passes = {"read": read_pass()}
        for dtype in (torch.float16, torch.bfloat16):
            passes[f"attention {dtype}"] = attention_pass(kernels, tokens, dtype, own=True)
            passes[f"torch {dtype}"] = attention_pass(kernels, tokens, dtype, own=False)
        measured[f"past {tokens}"] = measure(passes, args.runs)
    rows = [row for what, rates in measured.items() for row in rows_of(what, rates)]
    print(table(["", "weights", "GB/s", "of read"], rows))
    write_samples(args.json, {"host": host, "gb_per_s": measured})


if __name__ == "__main__":
    main()
