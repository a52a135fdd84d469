"""What a run takes of memory: the constants of the account, and its prediction against the peak of real runs.

    python benchmarks/process_memory.py                           # the constants of llmrun/planner/memory.py
    python benchmarks/process_memory.py --model M2 --model M8 --ram 2.5GiB      # prediction and peak of real models

The figure is the peak RSS of the process (VmHWM), pages of mapped files included: what `--ram` promises to bound.
PROCESS_BYTES: what is left of the peak of a tiny random model of some family when the prediction for all but the
process is taken away, in a run that plans for itself and goes through a prompt of more than one chunk.
TOKENIZER_BYTES_PER_ENTRY: how the peak grows while tokenizers of growing vocabularies are loaded.
LOADED_TOKENIZER_BYTES_PER_ENTRY: what of that is kept after the heap was trimmed.
HEAP_BYTES: with it, no run of --model is above its prediction.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import Report, argument_parser, note, print_host, run_tool, table, tool, write_samples
from synthetic_tokenizer import write_tokenizer

from llmrun.environment import begin_again_for_models
from llmrun.planner.memory import (
    HEAP_BYTES,
    LOADED_TOKENIZER_BYTES_PER_ENTRY,
    PROCESS_BYTES,
    TOKENIZER_BYTES_PER_ENTRY,
)
from llmrun.units import MIB, parse_bytes

FAMILIES = ("Llama", "Qwen2", "Qwen3", "Gemma3Text", "Phi3", "Mistral", "Olmo3", "GPTNeoX", "GPT2")
ENTRIES = (32_000, 64_000, 128_000, 256_000)
TINY_ENTRIES = 400
PROMPT = "a rather long text, " * 120
LONG_PROMPT = "a rather long text, " * 1000
PROMPT_TOKENS = (30, 448, 2000, 4000)
NEW_TOKENS = 8


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
    """A process that runs such a model through a prompt of more than one chunk."""
    note(family)
    with tempfile.TemporaryDirectory() as name:
        write_tiny_model(family, Path(name))
        return run_model(name, PROMPT, "--context", "4096")


def run_model(model: str, prompt: str, *options: str) -> Report:
    """A process that runs a model: a prompt, and some tokens."""
    return run_tool("run_llmrun.py", model, "-p", prompt, "--new", str(NEW_TOKENS), "--ignore-end", *options).report


def run_lengths(model: str, ram_bytes: int | None) -> Iterator[tuple[int, int, Report]]:
    """Runs of a model with contexts and prompts of several lengths, each in a process of its own."""
    ram = ["--ram", str(ram_bytes)] if ram_bytes else []
    for context_tokens in (512, 4096):
        for prompt_tokens in PROMPT_TOKENS:
            if prompt_tokens + NEW_TOKENS <= context_tokens:
                note(f"{model}: {prompt_tokens:,} tokens of {context_tokens:,}")
                lengths = ["--context", str(context_tokens), "--prompt-tokens", str(prompt_tokens)]
                yield context_tokens, prompt_tokens, run_model(model, LONG_PROMPT, *ram, *lengths)


def load_tokenizer(folder: str) -> int:
    """In a process of its own: print by how much loading a tokenizer raises the peak RSS, and the RSS for good."""
    from llmrun.engine.tokenizer import ChatTokenizer
    from llmrun.hardware import process_memory
    from llmrun.hardware.heap import keep_heap, trim_heap

    keep_heap()
    with tempfile.TemporaryDirectory() as name:  # what is imported and allocated for any tokenizer is not counted
        ChatTokenizer.load(write_tokenizer(Path(name), TINY_ENTRIES)).encode_text(PROMPT)
    trim_heap()
    before_bytes = process_memory().rss_bytes
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    tokenizer = ChatTokenizer.load(Path(folder))
    tokenizer.encode_text(PROMPT)
    peak_bytes = process_memory().peak_rss_bytes
    trim_heap()
    print(peak_bytes - before_bytes, process_memory().rss_bytes - before_bytes)
    return 0


def tokenizer_bytes(entries: int, merges_per_entry: int) -> tuple[int, int]:
    """What a tokenizer of that size takes at its peak, and for good."""
    note(f"tokenizer of {entries:,} entries, {merges_per_entry} merges an entry")
    with tempfile.TemporaryDirectory() as name:
        write_tokenizer(Path(name), entries, merges_per_entry)
        command = tool("process_memory.py", "--load-tokenizer", name)
        peak, kept = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
        return int(peak), int(kept)


def family_rows(reports: dict[str, Report]) -> list[list[str]]:
    """Peak, and what of it is the process's: a tiny model fills next to nothing of what the heap may keep."""
    rows = []
    for name, report in reports.items():
        beside = report.predicted_peak_bytes - report.planned_bytes["process"] - HEAP_BYTES
        took = report.peak_rss_bytes - beside
        rows.append([name, *(f"{nbytes / MIB:.0f}" for nbytes in (report.peak_rss_bytes, beside, took))])
    return rows


def run_row(model: str, context_tokens: int, prompt_tokens: int, report: Report) -> list[str]:
    """Measured, predicted and reserved."""
    measured, predicted = report.peak_rss_bytes, report.predicted_peak_bytes
    reserved = sum(report.planned_bytes.values())
    return [
        Path(model).name,
        f"{context_tokens:,}",
        f"{prompt_tokens:,}",
        *(f"{nbytes / MIB:,.0f}" for nbytes in (measured, predicted)),
        f"{measured / predicted:.3f}",
        f"{reserved / MIB:,.0f}",
    ]


def tokenizer_rows(taken: dict[int, dict[int, tuple[int, int]]]) -> list[list[str]]:
    """Bytes in all and for each entry, at the peak and for good."""
    return [
        [
            f"{entries:,}",
            str(merges),
            f"{peak / MIB:.0f}",
            f"{peak / entries:.0f}",
            f"{kept / MIB:.0f}",
            f"{kept / entries:.0f}",
        ]
        for merges, of_size in taken.items()
        for entries, (peak, kept) in of_size.items()
    ]


def print_constants() -> dict[str, Any]:
    """Measure and print the constants; returns the samples."""
    reports = {family: run_family(family) for family in FAMILIES}
    print(table(["family", "peak RSS MiB", "weights, KV, activations", "the process took"], family_rows(reports)))
    print(f"PROCESS_BYTES is {PROCESS_BYTES // MIB} MiB, HEAP_BYTES {HEAP_BYTES // MIB} MiB\n")
    taken = {merges: {size: tokenizer_bytes(size, merges) for size in ENTRIES} for merges in (1, 2)}
    headers = ["entries", "merges an entry", "peak MiB", "bytes an entry", "kept MiB", "bytes an entry"]
    print(table(headers, tokenizer_rows(taken)))
    print(f"TOKENIZER_BYTES_PER_ENTRY is {TOKENIZER_BYTES_PER_ENTRY}, kept {LOADED_TOKENIZER_BYTES_PER_ENTRY}\n")
    return {"families": {name: asdict(report) for name, report in reports.items()}, "tokenizers": taken}


def main() -> int:
    """Measure and print."""
    begin_again_for_models()  # as the command does
    parser = argument_parser(__doc__)
    parser.add_argument("--model", action="append", default=[], help="a real model, more than once if you like")
    parser.add_argument("--ram", type=parse_bytes, metavar="SIZE", help="what those are allowed")
    parser.add_argument("--load-tokenizer", metavar="FOLDER", help="(what this script starts itself for)")
    args: Any = parser.parse_args()
    if args.load_tokenizer:
        return load_tokenizer(args.load_tokenizer)
    facts = print_host(Path())
    samples = {} if args.model else print_constants()
    runs = [(model, *run) for model in args.model for run in run_lengths(model, args.ram)]
    if runs:
        headers = ["model", "context", "prompt", "peak RSS MiB", "predicted", "ratio", "reserved"]
        print(table(headers, [run_row(*run) for run in runs]))
    runs_samples = [[model, context, prompt, asdict(report)] for model, context, prompt, report in runs]
    write_samples(args.json, {"host": facts, "runs": runs_samples, **samples})
    return 0


if __name__ == "__main__":
    sys.exit(main())
