"""The same text: greedy answers to ten prompts by llmrun, transformers in fp32 and llama.cpp, of the same weights.

    python benchmarks/same_text.py FOLDER                               # llmrun and transformers in fp32
    python benchmarks/same_text.py FILE.gguf --llama-server BIN         # and llama.cpp on the same file
    ... --quality balanced                                              # and llmrun with another quality

The prompts are bare texts, given to each as llmrun's tokens. For each pair of tools: the first token that differs, and
how far apart either sees its two likeliest there (logits, of which llama.cpp tells the logarithm of the softmax: their
differences are the same). Over all positions where two tools have seen the same text, *the gap moves* by the
difference of what the two say of it. A first difference is a **near-tie** where it moved by no more (that is the sum
of the two gaps) than it does elsewhere: rounding alone decides there. transformers unpacks a GGUF file into floats.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from common import argument_parser, model_folder, note, print_host, run_tool, table, write_samples

PROMPTS = (
    "Paris, the capital of France, is a city that is known all over the world for",
    "Once upon a time there was a lighthouse keeper who",
    "Water boils at a lower temperature on a mountain because",
    "def fibonacci(n):",
    "The three most important inventions of the nineteenth century were",
    "Dear Sir or Madam,\n\nI am writing to you about",
    "To make a simple vegetable soup, begin by washing and cutting the vegetables. Then heat some oil in a large pot,",
    "A train leaves the station at nine in the morning and travels at sixty miles an hour. Another train leaves",
    "The old man looked out over the harbour, where the boats lay still in the morning fog, and thought of the years",
    "Bees are insects. They live in hives. A hive has one queen, some drones and many workers. The workers",
)
START_S, ANSWER_S = 120, 600


@dataclass(frozen=True)
class Told:
    """What a tool said to one prompt: its tokens, and (token, logit) of the likeliest at each."""

    token_ids: list[int]
    top: list[list[tuple[int, float]]]

    def gap(self, at: int, pair: tuple[int, int]) -> float | None:
        """How far the first token of a pair is above the second, where both are among the likeliest."""
        logits = dict(map(tuple, self.top[at]))
        return logits[pair[0]] - logits[pair[1]] if set(pair) <= set(logits) else None


def by_script(script: str, model: str, new_tokens: int, *options: str) -> tuple[list[Told], list[list[int]]]:
    """The answers of a script of this folder, and the tokens of the prompts."""
    asked = [option for prompt in PROMPTS for option in ("-p", prompt)]
    finished = run_tool(script, model, "--logits", "--new", str(new_tokens), *options, *asked)
    answers = finished.report.answers
    return [Told(each.token_ids, each.top_logits) for each in answers], [each.prompt_ids for each in answers]


@contextmanager
def server(binary: Path, model: str, threads: int) -> Iterator[str]:
    """A running llama-server; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(binary), "-m", model, "-t", str(threads), "-c", "1024", "-np", "1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, address)
        yield address
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], address: str) -> None:
    """Until it answers, or has ended."""
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    sys.exit("llama-server did not start")


def by_server(address: str, prompt_ids: Sequence[int], new_tokens: int) -> Told:
    """A greedy answer of llama.cpp."""
    asked = {"prompt": list(prompt_ids), "n_predict": new_tokens, "temperature": 0, "n_probs": 5}
    asked |= {"cache_prompt": False, "return_tokens": True, "repeat_penalty": 1.0}
    request = urllib.request.Request(f"{address}/completion", json.dumps(asked).encode())
    with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
        told = json.loads(response.read())
    positions = told["completion_probabilities"]
    top = [[(each["id"], each["logprob"]) for each in position["top_logprobs"]] for position in positions]
    return Told([position["id"] for position in positions], top)


@dataclass(frozen=True)
class Pair:
    """Two tools' answers to one prompt."""

    one: Told
    other: Told

    @property
    def same_tokens(self) -> int:
        """How many tokens are the same from the beginning on."""
        both = zip(self.one.token_ids, self.other.token_ids, strict=False)
        return next((at for at, (own, their) in enumerate(both) if own != their), self.shorter)

    @property
    def shorter(self) -> int:
        """Tokens of the shorter answer."""
        return min(len(self.one.token_ids), len(self.other.token_ids))

    @property
    def differs(self) -> bool:
        """Whether it does before the end of either."""
        return self.same_tokens < self.shorter

    def moves(self) -> list[float]:
        """By how much the gap of the two likeliest differs, where the tokens are the same."""
        found = []
        for at in range(self.same_tokens):
            first, second = (token for token, _ in self.one.top[at][:2])
            gaps = self.one.gap(at, (first, second)), self.other.gap(at, (first, second))
            if gaps[0] is not None and gaps[1] is not None:
                found.append(abs(gaps[0] - gaps[1]))
        return found

    def gaps(self) -> tuple[float | None, float | None]:
        """Where they differ: how far each puts its own token above the other's."""
        at = self.same_tokens
        own, their = self.one.token_ids[at], self.other.token_ids[at]
        return self.one.gap(at, (own, their)), self.other.gap(at, (their, own))


def verdict(pair: Pair, most: float) -> str:
    """A cell of the table."""
    if not pair.differs:
        return f"equal ({pair.shorter})"
    gaps = pair.gaps()
    near = all(gap is not None for gap in gaps) and sum(gap or 0 for gap in gaps) <= most
    said = " and ".join("not of the five" if gap is None else f"{gap:.4f}" for gap in gaps)
    return f"token {pair.same_tokens + 1}: {said}{' (near-tie)' if near else ' (moved more than elsewhere)'}"


def moved(moves: Sequence[float]) -> str:
    """How far gaps move, in words."""
    return f"median {median(moves):.4f}, 95 % {quantiles(moves, n=20)[-1]:.4f}, most {max(moves):.4f}"


def compare(told: Mapping[str, Sequence[Told]]) -> tuple[list[str], list[list[str]]]:
    """A column for each pair of tools, a row for each prompt."""
    columns: dict[str, list[str]] = {}
    for one, other in combinations(told, 2):
        pairs = [Pair(*both) for both in zip(told[one], told[other], strict=True)]
        moves = [move for pair in pairs for move in pair.moves()]
        equal = sum(not pair.differs for pair in pairs)
        ends = [f"{equal} of {len(pairs)} equal", moved(moves)]
        columns[f"{one} / {other}"] = [verdict(pair, max(moves)) for pair in pairs] + ends
    names = [prompt[:24].replace("\n", " ") + "..." for prompt in PROMPTS] + ["all", "the gap moves by"]
    return ["prompt", *columns], [list(row) for row in zip(names, *columns.values(), strict=True)]


def main() -> int:
    """Ask all, compare, print."""
    parser = argument_parser(__doc__)
    parser.add_argument("model", help="folder, alias, hub id or .gguf file")
    parser.add_argument("--llama-server", type=Path, help="llama.cpp's, to run it on the same .gguf file")
    parser.add_argument("--gguf", help="the file that it runs (default: the model)")
    parser.add_argument("--quality", help="run llmrun with this one as well")
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    facts = print_host(model_folder(args.model))
    note("llmrun")
    told: dict[str, Sequence[Told]] = {}
    told["llmrun"], prompts = by_script("run_llmrun.py", args.model, args.new)
    note("transformers")
    told["fp32"], same = by_script("run_transformers.py", args.model, args.new, "--dtype", "float32")
    assert prompts == same, "the two were asked different things"
    if args.quality:
        told[args.quality], _ = by_script("run_llmrun.py", args.model, args.new, "--quality", args.quality)
    if args.llama_server:
        note("llama.cpp")
        with server(args.llama_server, args.gguf or args.model, args.threads) as address:
            told["llama.cpp"] = [by_server(address, prompt, args.new) for prompt in prompts]
    print("\nfirst difference: the gap as either sees it\n")
    print(table(*compare(told)))
    samples: dict[str, Any] = {tool: [asdict(each) for each in answers] for tool, answers in told.items()}
    write_samples(args.json, {"host": facts, "prompts": prompts, "told": samples})
    return 0


if __name__ == "__main__":
    sys.exit(main())
