"""How many tokens a pass gives when a model's own layers, rounded to few bits, draft: by way of rounding.

    python benchmarks/substitutes.py FOLDER
    python benchmarks/substitutes.py FOLDER --formats Q4_0 Q4_1 --new-tokens 64 --drafts 16

The model answers the prompts of draft_prompts.py greedily. Then each rounded model says what it would have guessed at
every place of the same texts, and the passes are counted that a draft of so many tokens each time would have taken: a
guess is right where it is what the model said. *gguf* is plain rounding to the nearest (the package gguf, as ggml's
reference does it), *llmrun* the search that substitutes are made with, *calibrated* weighs errors by what the columns
meet. The head stays as it is. Weights on the grid of a 4-bit file show nothing: see off_grid.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from statistics import fmean, quantiles
from typing import Any

import torch
from common import model_folder, table
from draft_prompts import prompts
from quantise_error import column_importance_of, rounded_layers, roundings

from llmrun.formats import weight_format

Model = Any  # a class of transformers, which has no types


def tokens_a_pass(right: list[bool], drafts: int) -> float:
    """What a text comes to whose tokens were guessed right or not."""
    at = passes = 0
    while at < len(right):
        run = right[at : at + drafts]
        at += (run.index(False) if False in run else len(run)) + 1
        passes += 1
    return len(right) / passes


@torch.inference_mode()
def answers(model: Model, tokenizer: Model, each: int, new_tokens: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Prompt and greedy answer, ``(1, T)``, and how many of these are the prompt's."""
    for _, text in prompts(each):
        chat = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ids = ids["input_ids"]
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
        )
        yield whole, ids.shape[1]


@torch.inference_mode()
def guessed_right(model: Model, whole: torch.Tensor, prompt_tokens: int) -> list[bool]:
    """For each token of an answer but the first, which the prompt's pass gives."""
    said = model(input_ids=whole[:, :-1]).logits
    return (said[0, prompt_tokens:].argmax(-1) == whole[0, prompt_tokens + 1 :]).tolist()


def main() -> None:
    """Answer, round, count, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--formats", nargs="+", default=["Q4_0", "Q4_1"])
    parser.add_argument("--prompts", type=int, default=5, help="of each kind")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--drafts", type=int, default=16)
    args = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder(args.model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = list(answers(model, tokenizer, args.prompts, args.new_tokens))
    importance = column_importance_of(folder, tokenizer)
    rows = []
    for fmt in map(weight_format, args.formats):
        plain = None
        for way, rounding in roundings(fmt, importance).items():
            with rounded_layers(model, fmt, rounding):
                right = [guessed_right(model, whole, count) for whole, count in texts]
            rates = [tokens_a_pass(each, args.drafts) for each in right]
            mean = sum(map(len, right)) / sum(len(each) / rate for each, rate in zip(right, rates, strict=True))
            plain = plain or mean
            share = fmean(flag for each in right for flag in each)
            low, _, high = quantiles(rates, n=4)
            cells = f"{mean:.2f}", f"{low:.1f} to {high:.1f}", f"{mean / plain:.2f}", f"{share:.1%}"
            rows.append([fmt.name, f"{fmt.bits_per_weight:.2f}", way, *cells])
    headings = ["format", "bits", "rounding", "tokens a pass", "middle half", "over gguf", "guesses right"]
    print(table(headings, rows))


if __name__ == "__main__":
    main()
