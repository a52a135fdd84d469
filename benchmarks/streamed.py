"""Fewer bits, fewer bytes: one model in several formats, streamed within the same budget.

    llmrun quantize BF16 --format q8 -o Q8 && llmrun quantize BF16 --format q4 -o Q4
    python benchmarks/streamed.py BF16 Q8 Q4 --ram 1.5GiB --machine 2.5GiB

Of each: the bytes read from disk for a token, over the bf16 ones; and how busy the disk was kept, against a plain
direct-I/O reader of the same files in turns (as `larger_than_memory.py --part decode` has it). *Streamable* are the
bytes that a token needs, all but the rows of an embedding of its own that are not looked up: what the format alone is
worth. A budget that holds a unit of the one holds several of the other, so the bytes read fall by more. Needs root.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import Any

from common import MB, argument_parser, model_folder, note, print_host, spread, table, write_samples
from larger_than_memory import Decoded, add_segments, decoded

from llmrun.checkpoint import read_spec
from llmrun.checkpoint.spec import UnitKind
from llmrun.units import parse_bytes


def streamable_bytes(folder: Path) -> int:
    """What a token needs of the weights."""
    return sum(unit.nbytes for unit in read_spec(folder).units if unit.kind is not UnitKind.EMBEDDING)


def row(folder: Path, found: Decoded, first: tuple[float, int] | None) -> tuple[list[str], tuple[float, int]]:
    """The cells of a format; and its bytes read and streamable, of which the first model's are the measure."""
    per_token = [segment.nbytes / segment.tokens for segment in found.segments]
    streamable = streamable_bytes(folder)
    read_of, streamable_of = first or (median(per_token), streamable)
    seconds = [segment.seconds / segment.tokens for segment in found.segments]
    cells = [
        read_spec(folder).format_words,
        f"{streamable / MB:,.0f}",
        f"{streamable / streamable_of:.3f}",
        spread([nbytes / MB for nbytes in per_token], ".0f"),
        f"{median(per_token) / read_of:.3f}",
        spread(found.pairs, ".3f"),
        spread([1 / each for each in seconds], ".3f"),
        f"{found.result['resident_units']} of {found.result['units']}",
    ]
    return cells, (read_of, streamable_of)


def measure(folders: list[Path], args: Namespace) -> tuple[list[list[str]], dict[str, Any]]:
    """All formats, one after the other."""
    rows, samples = [], {}
    first: tuple[float, int] | None = None
    for folder in folders:
        note(f"{folder.name}: decode and plain reads in turns")
        found = decoded(folder, args)
        cells, first = row(folder, found, first)
        rows.append(cells)
        samples[folder.name] = found.sample
    return rows, samples


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("models", nargs="+", help="folders; the first is what the others are compared with")
    parser.add_argument("--ram", type=parse_bytes, required=True, metavar="SIZE", help="what llmrun is allowed")
    parser.add_argument("--machine", type=parse_bytes, metavar="SIZE", help="RAM of the machine (default: all)")
    parser.add_argument("--disk", type=parse_bytes, metavar="SIZE", help="bytes/s that its disk gives (default: all)")
    add_segments(parser)
    args = parser.parse_args()
    folders = [model_folder(model).resolve() for model in args.models]
    facts = print_host(folders[0])
    rows, samples = measure(folders, args)
    headers = ["weights", "streamable MB", "ratio", "MB read per token", "ratio"]
    print(table([*headers, "llmrun / plain reader", "tok/s", "units resident"], rows))
    write_samples(args.json, {"host": facts, "formats": samples})
    return 0


if __name__ == "__main__":
    sys.exit(main())
