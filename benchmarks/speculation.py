"""Several tokens a pass: greedy answers with and without drafts, in turns, on the same memory; and beside others.

    python benchmarks/speculation.py MODEL --ram 4GiB                   # 20 prompts of four kinds, 128 new tokens
    python benchmarks/speculation.py MODEL --ram 4GiB --brief           # 8 prompts, 64 new tokens
    ... --how self --together 5 --machine 4GiB --disk 1GiB
    ... --json samples.json --resume                                     # go on where an earlier run was stopped
    ... --off-tokens 16                                                  # without drafts only so many of each answer
    ... --peers llama.cpp accelerate --machine 4GiB --gguf MODEL-bf16.gguf --llama-completion BIN

Each process answers ``--together`` prompts (default 1: as `llmrun chat -p` does, with nothing learnt from an answer
before), the processes of the two ways one after the other, the first of each pair in turns; the samples are written
after each prompt. Shown for each: tokens a pass, the share of guesses that were right, decode tok/s of both and their
ratio, and whether the tokens are the same. From the first difference on, or from where the answer without drafts ends,
the model without drafts gets prompt and answer, 32 tokens at once: each token has to be the likeliest. Where it is not,
the gap to the likeliest is shown (at the first difference, to the token of the answer without drafts): a near-tie is a
step of bf16 there or less, 2^-8 to 2^-7 of the largest logit. The prompts of random words show what text costs that is
hard to guess.

Peers answer the first ``--peer-prompts`` of each kind but random words, some tokens of each, on a machine of the same
memory: see peers.py. llama.cpp's own `convert_hf_to_gguf.py MODEL --outtype bf16 --outfile MODEL-bf16.gguf` makes the
same weights for it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, median
from typing import Any

from common import (
    add_llama_cpp,
    add_machine,
    argument_parser,
    measure_machine,
    model_folder,
    note,
    print_host,
    ratios,
    run_tool,
    run_tool_on,
    spread,
    table,
    write_samples,
)
from draft_prompts import RANDOM, prompts
from limited import Limits
from peers import HEADERS, Run, run_llama, run_python, tool_row
from run_drafts import Miss, Sample, Text, add_run

from llmrun.units import parse_bytes

BRIEF = (2, 64)  # prompts of a kind, new tokens
WHOLE = (5, 128)


@dataclass(frozen=True)
class Measured:
    """What was measured of a prompt."""

    kind: str
    prompt: str
    plain: Sample  # without drafts
    drafted: Sample
    peers: dict[str, Run | None] = field(default_factory=dict)  # ``None``: it gave no answer
    misses: list[Miss] | None = None  # ``None``: not checked yet

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Measured:
        """What ``asdict`` made of it."""
        peers = {name: Run(**run) if run else None for name, run in value["peers"].items()}
        misses = None if value["misses"] is None else [Miss(**miss) for miss in value["misses"]]
        plain, drafted = Sample(**value["plain"]), Sample(**value["drafted"])
        return cls(value["kind"], value["prompt"], plain, drafted, peers, misses)

    @property
    def same_tokens(self) -> int:
        """How many tokens are the same in both answers, from the beginning on."""
        both = zip(self.plain.token_ids, self.drafted.token_ids, strict=False)
        shorter = min(len(self.plain.token_ids), len(self.drafted.token_ids))
        return next((at for at, (own, their) in enumerate(both) if own != their), shorter)

    @property
    def rest(self) -> Text | None:
        """What is to be checked; ``None`` where both answers are the same to the end."""
        since, plain = self.same_tokens, self.plain.token_ids
        if since == len(self.drafted.token_ids):
            return None
        rival = plain[since] if since < len(plain) else None
        return Text(self.drafted.prompt_ids, self.drafted.token_ids, since, rival)

    @property
    def ratio(self) -> float:
        """Decode tok/s with drafts over that without."""
        return self.plain.tpot_s / self.drafted.tpot_s

    @property
    def verdict(self) -> str:
        """``same``, ``16 the same, 112 the likeliest``, or the tokens that are not."""
        if not self.misses:
            rest = len(self.drafted.token_ids) - self.same_tokens
            return f"{self.same_tokens} the same, {rest} the likeliest" if rest else "same"
        return "; ".join(
            f"{'near-tie' if miss.is_near else 'DIFFERENT'} at {miss.at}: {miss.gap:.4f} of {miss.largest:.1f}"
            for miss in self.misses
        )

    def over(self, peer: str) -> float | None:
        """Decode tok/s with drafts over a peer's."""
        run = self.peers.get(peer)
        return 1 / self.drafted.tpot_s / run.decode_tokens_per_s if run else None


def child(args: Namespace, how: str, new_tokens: int, asked: Sequence[Any], *options: str) -> list[Any]:
    """What run_drafts.py says to what is asked, on the machine that was asked for."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asked, file)
        file.flush()
        command = [args.model, "--how", how, "--ram", str(args.ram), "--context", str(args.context), *options]
        command += ["--new-tokens", str(new_tokens), "--draft-tokens", str(args.draft_tokens), "--asked", file.name]
        if args.machine or args.disk:
            limits, path = Limits(args.machine, args.disk), model_folder(args.model)
            finished = run_tool_on(limits, path, "run_drafts.py", *command)[0]
        else:
            finished = run_tool("run_drafts.py", *command)
    told: list[Any] = json.loads(finished.output.strip().splitlines()[-1])
    return told


def measure(
    args: Namespace,
    asked: Sequence[tuple[str, str]],
    before: Sequence[Measured],
    keep: Callable[[list[Measured]], None],
) -> list[Measured]:
    """What was measured before, and after it the other prompts, each kept when it is whole."""
    found = list(before)
    if len(found) < len(asked) and (args.machine or args.disk):
        measure_machine(Limits(args.machine, args.disk), model_folder(args.model))
    while len(found) < len(asked):
        block = asked[len(found) : len(found) + args.together]
        note(f"prompts {len(found) + 1} to {len(found) + len(block)} of {len(asked)}")
        ways = {"off": args.off_tokens or args.new_tokens, args.how: args.new_tokens}
        order = list(ways) if len(found) // args.together % 2 == 0 else [*reversed(ways)]
        told = {how: child(args, how, ways[how], [prompt for _, prompt in block]) for how in order}
        pairs = [
            (Sample(**plain), Sample(**drafted)) for plain, drafted in zip(told["off"], told[args.how], strict=True)
        ]
        for (kind, prompt), pair in zip(block, pairs, strict=True):
            one = Measured(kind, prompt, *pair)
            found.append(replace(one, peers=beside(args, one)) if is_for_peers(args, one, asked) else one)
            keep(found)
    return found


def is_for_peers(args: Namespace, one: Measured, asked: Sequence[tuple[str, str]]) -> bool:
    """Whether it is one of the few prompts that peers answer, who take many seconds a token."""
    first = [prompt for kind, prompt in asked if kind == one.kind and kind != RANDOM][: args.peer_prompts]
    return bool(args.peers) and one.prompt in first


def beside(args: Namespace, one: Measured) -> dict[str, Run | None]:
    """The peers on this prompt, one after the other."""
    from transformers import AutoTokenizer

    folder, limits = model_folder(args.model).resolve(), Limits(args.machine, args.disk)
    text = AutoTokenizer.from_pretrained(folder).decode(one.plain.prompt_ids)
    offload = ("--chat", "--offload", str(args.offload or args.ram // 2))
    tools: dict[str, Callable[[], Run]] = {
        "llama.cpp": lambda: run_llama(args, limits, text, args.peer_tokens),
        "accelerate": lambda: run_python(folder, limits, "run_transformers.py", one.prompt, args.peer_tokens, *offload),
    }
    found: dict[str, Run | None] = {}
    for name in args.peers:
        note(name)
        try:
            found[name] = tools[name]()
        except SystemExit as end:  # killed for memory, or too few words to be timed
            note(f"{name}: {end}")
            found[name] = None
    return found


def checked(args: Namespace, found: Sequence[Measured]) -> list[Measured]:
    """With the tokens that are not the likeliest, of each answer that goes on after those that are the same."""
    texts = [one.rest for one in found if one.misses is None and one.rest]
    if texts:
        note(f"checking {len(texts)} answers")
    told = iter(child(args, "off", 1, [asdict(text) for text in texts], "--check") if texts else [])
    return [
        one
        if one.misses is not None
        else replace(one, misses=[Miss(**miss) for miss in next(told)] if one.rest else [])
        for one in found
    ]


def prompt_table(found: Sequence[Measured], peers: Sequence[str]) -> str:
    """A row for each prompt."""
    rows = []
    for one in found:
        drafted = one.drafted
        rate = f"{drafted.tokens_per_pass:.2f}" if drafted.tokens_per_pass else "1"
        right = f"{drafted.acceptance:.0%}" if drafted.acceptance is not None else "-"
        speeds = [f"{1 / each.tpot_s:.3g}" for each in (drafted, one.plain)]
        others = [f"{over:.1f}" if (over := one.over(name)) else "-" for name in peers]
        rows.append((one.kind, rate, right, *speeds, f"{one.ratio:.2f}", *others, one.verdict))
    over_them = [f"over {name}" for name in peers]
    return table(("prompt", "tokens a pass", "guesses right", "tok/s", "without", "ratio", *over_them, "tokens"), rows)


def kind_table(found: Sequence[Measured], peers: Sequence[str]) -> str:
    """A row for each kind of prompt, and for all but random words."""
    rows = []
    for kind in (*dict.fromkeys(one.kind for one in found), None):
        own = [one for one in found if (one.kind == kind if kind else one.kind != RANDOM)]
        if not own:
            continue
        passes = fmean(one.drafted.tokens_per_pass or 1.0 for one in own)
        many = [one.ratio for one in own]
        errors = [(one.drafted.predicted_tpot_s or one.drafted.tpot_s) / one.drafted.tpot_s - 1 for one in own]
        first = median(one.drafted.ttft_s / one.plain.ttft_s for one in own)
        cells = f"{passes:.2f}", f"{median(many):.2f}", f"{min(many):.2f}", f"{first:.2f}", f"{median(errors):+.0%}"
        over = [[ratio for one in own if (ratio := one.over(name))] for name in peers]
        rows.append((kind or f"all but {RANDOM}", *cells, *(f"{median(each):.1f}" if each else "-" for each in over)))
    headings = (
        "prompts",
        "tokens a pass, mean",
        "ratio, median",
        "worst",
        "first token, ratio",
        "predicted / measured",
    )
    return table((*headings, *(f"over {name}, median" for name in peers)), rows)


def peer_table(found: Sequence[Measured], peers: Sequence[str]) -> str:
    """A row for each peer, and what llmrun has over it, with drafts and without."""
    rows = []
    for name in peers:
        pairs = [(one, run) for one in found if (run := one.peers.get(name))]
        if not pairs:
            rows.append([name, "no answer", *[""] * len(HEADERS)])
            continue
        theirs = [run.decode_tokens_per_s for _, run in pairs]
        ours = [[1 / sample.tpot_s for sample in (one.drafted, one.plain)] for one, _ in pairs]
        cells = [spread(ratios(each, theirs)) for each in zip(*ours, strict=True)]
        rows.append([*tool_row(name, [run for _, run in pairs]), *cells])
    return table([*HEADERS, "llmrun's decode over it", "without drafts"], rows)


def show(found: Sequence[Measured], peers: Sequence[str]) -> None:
    """The tables."""
    print("\n" + prompt_table(found, peers))
    print("\n" + kind_table(found, peers))
    if peers:
        print("\n" + peer_table(found, peers))
    same = sum(one.same_tokens for one in found)
    rest = sum(len(one.drafted.token_ids) for one in found) - same
    misses = [miss for one in found for miss in one.misses or []]
    near = sum(miss.is_near for miss in misses)
    print(
        f"\n{same} tokens are those of the answers without drafts; {rest} more were checked in a pass over the answer:"
    )
    print(f"{rest - len(misses)} the likeliest, {near} near-ties, {len(misses) - near} different")
    print(f"peak memory {max(one.drafted.peak_bytes for one in found) / 2**30:.2f} GiB")


def earlier(args: Namespace, settings: Mapping[str, Any]) -> tuple[list[Any], list[Measured]]:
    """The hosts and samples that runs with the same settings wrote before; nothing where there is no such file."""
    if not args.resume or not args.json.exists():
        return [], []
    kept = json.loads(args.json.read_text())
    other = [name for name, value in settings.items() if kept["settings"].get(name) != value]
    if other:
        sys.exit(f"{args.json} was measured with other {', '.join(other)}: it cannot be gone on with")
    return kept["hosts"], [Measured.parse(value) for value in kept["samples"]]


def add_options(parser: ArgumentParser) -> None:
    """Those that are only of this benchmark."""
    parser.add_argument("--together", type=int, default=1, metavar="N", help="prompts that a process answers")
    parser.add_argument("--brief", action="store_true", help="fewer and shorter answers")
    parser.add_argument("--prompts", type=int, help="of each kind but random words")
    parser.add_argument("--off-tokens", type=int, metavar="N", help="tokens of an answer without drafts (default: all)")
    parser.add_argument("--resume", action="store_true", help="go on from the file of --json")
    parser.add_argument("--peers", nargs="+", choices=("llama.cpp", "accelerate"), default=[])
    parser.add_argument("--peer-prompts", type=int, default=1, metavar="N", help="of each kind but random words")
    parser.add_argument("--peer-tokens", type=int, default=8, metavar="N", help="tokens of a peer's answer")
    parser.add_argument("--offload", type=parse_bytes, metavar="SIZE", help="RAM for Accelerate's weights (--ram / 2)")


def options() -> Namespace:
    """What the command line asks for."""
    parser = argument_parser(__doc__)
    add_machine(parser)
    add_run(parser)
    add_options(parser)
    add_llama_cpp(parser, required=False)
    args = parser.parse_args()
    if args.resume and not args.json:
        parser.error("--resume needs --json FILE")
    if args.peers and not args.machine:
        parser.error("--peers needs --machine SIZE: peers leave what they keep to the page cache")
    if "llama.cpp" in args.peers and not (args.gguf and args.llama_completion):
        parser.error("llama.cpp needs --gguf FILE and --llama-completion BIN")
    each, new_tokens = BRIEF if args.brief else WHOLE
    args.prompts, args.new_tokens = args.prompts or each, args.new_tokens or new_tokens
    return args


def main() -> None:
    """Measure, compare, show."""
    args = options()
    names = ("model", "ram", "machine", "disk", "how", "draft_tokens", "context", "prompts", "new_tokens", "off_tokens")
    settings = {name: getattr(args, name) for name in (*names, "peers", "peer_prompts", "peer_tokens", "offload")}
    hosts, before = earlier(args, settings)
    hosts.append(print_host(model_folder(args.model)))

    def keep(found: list[Measured]) -> None:
        samples = [asdict(one) for one in found]
        write_samples(args.json, {"hosts": hosts, "settings": settings, "samples": samples})

    found = checked(args, measure(args, list(prompts(args.prompts)), before, keep))
    keep(found)
    show(found, args.peers)


if __name__ == "__main__":
    main()
