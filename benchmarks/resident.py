"""A model that fits: decode of llmrun against transformers' own `generate`, and what is read after the first pass.

    python benchmarks/resident.py smollm2:135m --new 128 --runs 5

bf16, greedy, same prompt, same number of new tokens; decode tok/s = (n - 1) / (t_last - t_first). The two run as
processes in turns, not as segments of one: the weights of both need not fit at once, and neither finds the threads and
the allocator in the state that the other left. The page cache is warm; the first answer of a process is thrown away.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from common import (
    Answer,
    argument_parser,
    model_folder,
    note,
    print_host,
    ratios,
    run_tool,
    spread,
    table,
    write_samples,
)

PROMPT = "Tell me a long story about a lighthouse keeper and the sea."
SCRIPTS = {"llmrun": "run_llmrun.py", "transformers": "run_transformers.py"}


def measure(folder: str, args: Any) -> dict[str, list[list[Answer]]]:  # noqa: ANN401
    """For each tool and run its two answers."""
    options = ["--chat", "--ignore-end", "--new", str(args.new), "-p", PROMPT, "-p", PROMPT]
    answers: dict[str, list[list[Answer]]] = {name: [] for name in SCRIPTS}
    for run in range(args.runs):
        for name in list(SCRIPTS)[:: 1 if run % 2 else -1]:  # each goes first every other time
            found = run_tool(SCRIPTS[name], folder, *options).report.answers
            answers[name].append(found)
            note(f"run {run + 1}: {name} {found[1].decode_tokens_per_s:.2f} tok/s")
    return answers


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("--new", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    folder = model_folder(args.model)
    facts = print_host(folder)
    answers = measure(str(folder), args)
    speeds = {name: [second.decode_tokens_per_s for _, second in found] for name, found in answers.items()}
    ours = answers["llmrun"]
    read = [second.read_bytes[-1] - first.read_bytes[0] for first, second in ours]
    same = ours[0][1].token_ids == answers["transformers"][0][1].token_ids
    rows = [
        ["llmrun, tok/s", spread(speeds["llmrun"])],
        ["transformers, tok/s", spread(speeds["transformers"])],
        ["llmrun / transformers", spread(ratios(speeds["llmrun"], speeds["transformers"]), ".3f")],
        ["bytes from disk after the first token (the kernel's count)", f"{max(read)}"],
        ["the same tokens", "yes" if same else "no"],
    ]
    print(table([f"{folder.name}, {args.new} tokens", f"median of {args.runs} (lowest to highest)"], rows))
    write_samples(
        args.json, {"host": facts, "answers": {k: [list(map(asdict, a)) for a in v] for k, v in answers.items()}}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
