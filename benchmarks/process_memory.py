"""What a process takes before the first weight: the two constants of `llmrun/planner/memory.py`.

    python benchmarks/process_memory.py
    python benchmarks/process_memory.py --model MODEL --ram 2.5GiB     # and a real model's account against its peak

PROCESS_BYTES: the peak RSS (VmHWM, pages of mapped files included) of a process that runs a tiny random model of some
family through a prompt of more than one chunk, less what the account has for weights, ring, KV cache and workspace.
TOKENIZER_BYTES_PER_ENTRY: how the peak RSS grows while tokenizers of growing vocabularies are loaded.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import Report, argument_parser, note, print_host, run_tool, table, tool, write_samples
from synthetic_tokenizer import write_tokenizer

from llmrun.planner.memory import PROCESS_BYTES, TOKENIZER_BYTES_PER_ENTRY
from llmrun.units import MIB, parse_bytes

FAMILIES = ("Llama", "Qwen2", "Qwen3", "Gemma3Text", "Phi3", "Mistral", "Olmo3", "GPTNeoX", "GPT2")
ENTRIES = (32_000, 64_000, 128_000, 256_000)
TINY_ENTRIES = 400
PROMPT = "a rather long text, " * 120


def write_tiny_model(family: str, folder: Path) -> None:
    """A random model of a family with 2 layers and a tokenizer."""
    import torch
    import transformers

    config = getattr(transformers, f"{family}Config")(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        n_embd=64, n_layer=2, n_head=4, n_positions=4096, max_position_embeddings=4096, head_dim=16,
        vocab_size=TINY_ENTRIES, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder, TINY_ENTRIES)


def run_family(family: str) -> Report:
    """A process that runs such a model."""
    note(family)
    with tempfile.TemporaryDirectory() as name:
        write_tiny_model(family, Path(name))
        return run_model(name, "--context", "4096")


def run_model(model: str, *options: str) -> Report:
    """A process that runs a model: a prefill of more than one chunk, and some tokens."""
    return run_tool("run_llmrun.py", model, "-p", PROMPT, "--new", "8", "--ignore-end", *options).report


def beside_process(report: Report) -> int:
    """What the account has for all but the process."""
    return sum(nbytes for label, nbytes in report.planned_bytes.items() if label != "process")


def load_tokenizer(folder: str) -> int:
    """In a process of its own: print by how many bytes loading a tokenizer raises the peak RSS."""
    from llmrun.engine.tokenizer import ChatTokenizer
    from llmrun.hardware import process_memory

    with tempfile.TemporaryDirectory() as name:  # what is imported and allocated for any tokenizer is not counted
        ChatTokenizer.load(write_tokenizer(Path(name), TINY_ENTRIES)).encode_text(PROMPT)
    before_bytes = process_memory().rss_bytes
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    ChatTokenizer.load(Path(folder)).encode_text(PROMPT)
    print(process_memory().peak_rss_bytes - before_bytes)
    return 0


def tokenizer_bytes(entries: int, merges_per_entry: int) -> int:
    """What a tokenizer of that size takes at its peak."""
    note(f"tokenizer of {entries:,} entries, {merges_per_entry} merges an entry")
    with tempfile.TemporaryDirectory() as name:
        write_tokenizer(Path(name), entries, merges_per_entry)
        command = tool("process_memory.py", "--load-tokenizer", name)
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def family_rows(reports: dict[str, Report]) -> list[list[str]]:
    """Peak, account and what is left for the process."""
    return [
        [
            name,
            f"{report.peak_rss_bytes / MIB:.0f}",
            f"{beside_process(report) / MIB:.0f}",
            f"{(report.peak_rss_bytes - beside_process(report)) / MIB:.0f}",
            f"{report.planned_bytes['process'] / MIB:.0f}",
        ]
        for name, report in reports.items()
    ]


def tokenizer_rows(peaks: dict[int, dict[int, int]]) -> list[list[str]]:
    """Bytes for each entry: over all of a tokenizer, and from one size to the next."""
    rows = []
    for merges, of_size in peaks.items():
        sizes = sorted(of_size)
        for smaller, entries in zip([0, *sizes], sizes, strict=False):
            more = (of_size[entries] - of_size.get(smaller, 0)) / (entries - smaller)
            rows.append([f"{entries:,}", str(merges), f"{of_size[entries] / MIB:.0f}",
                         f"{of_size[entries] / entries:.0f}", f"{more:.0f}"])  # fmt: skip
    return rows


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model", help="a real model to hold the account against")
    parser.add_argument("--ram", type=parse_bytes, metavar="SIZE", help="what that one is allowed")
    parser.add_argument("--load-tokenizer", metavar="FOLDER", help="(what this script starts itself for)")
    args: Any = parser.parse_args()
    if args.load_tokenizer:
        return load_tokenizer(args.load_tokenizer)
    facts = print_host(Path())
    reports = {family: run_family(family) for family in FAMILIES}
    if args.model:
        reports[args.model] = run_model(args.model, *(["--ram", str(args.ram)] if args.ram else []))
    headers = ["model", "peak RSS MiB", "weights, ring, KV, workspace", "so the process took", "the account has for it"]
    print(table(headers, family_rows(reports)))
    print(f"PROCESS_BYTES is {PROCESS_BYTES // MIB} MiB\n")
    peaks = {merges: {size: tokenizer_bytes(size, merges) for size in ENTRIES} for merges in (1, 2)}
    headers = ["entries", "merges an entry", "peak MiB", "bytes an entry", "bytes a further entry"]
    print(table(headers, tokenizer_rows(peaks)))
    print(f"TOKENIZER_BYTES_PER_ENTRY is {TOKENIZER_BYTES_PER_ENTRY}")
    runs = {name: asdict(report) for name, report in reports.items()}
    write_samples(args.json, {"host": facts, "runs": runs, "tokenizer_peaks": peaks})
    return 0


if __name__ == "__main__":
    sys.exit(main())
