"""Run plain transformers, or Accelerate's disk offload, on the same prompts; the other benchmarks start this.

    python benchmarks/run_transformers.py MODEL -p "The capital of France is" --new 16
    python benchmarks/run_transformers.py MODEL -p ... --offload 2GiB     # so much in RAM, the rest on disk

bf16 or what is asked, greedy, `AutoModelForCausalLM.generate`, with no repetition penalty or the like that the model
does not ask for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import Answer, Report, model_folder, print_report, process_counters
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer

from llmrun.units import parse_bytes


class Clock(BaseStreamer):  # type: ignore[misc]
    """Notes when each token came; ``generate`` hands it the prompt first."""

    def __init__(self) -> None:
        self.token_s: list[float] = []
        self.read_bytes: list[int] = []
        self._prompt_is_next = True

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, then one token at a time."""
        if not self._prompt_is_next:
            self.token_s.append(time.monotonic())
            self.read_bytes.append(process_counters()["read_bytes"])
        self._prompt_is_next = False

    def end(self) -> None:
        """Nothing is held back."""


def import_family(folder: str) -> float:
    """Have transformers import the code of the model, and return when that was done: imports are not counted."""
    with torch.device("meta"):
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return time.monotonic()


def load(args: argparse.Namespace, folder: str, scratch: str) -> Any:  # noqa: ANN401
    """The model in RAM, or with Accelerate's hooks that bring in from disk what exceeds ``args.offload``."""
    dtype: torch.dtype = getattr(torch, args.dtype)
    if args.model.endswith(".gguf"):  # made floats as they are loaded
        file = Path(args.model)
        return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
    if args.offload is None:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map="auto", max_memory={"cpu": args.offload}, offload_folder=scratch
    )


def encode(tokenizer: Any, prompt: str, *, chat: bool) -> list[int]:  # noqa: ANN401
    """The tokens of a prompt: as the model's chat template has it, or the bare text."""
    if not chat:
        return list(tokenizer(prompt).input_ids)
    message = [{"role": "user", "content": prompt}]
    return list(tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False))


def answer(model: Any, tokenizer: Any, prompt_ids: list[int], args: argparse.Namespace) -> Answer:  # noqa: ANN401
    """A greedy answer, with times and bytes for each token; the end token is not part of it."""
    clock, ids = Clock(), torch.tensor([prompt_ids])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=args.new,
        min_new_tokens=args.new if args.ignore_end else None,
        streamer=clock,
        return_dict_in_generate=True,
        output_logits=args.logits,
    )
    token_ids = output.sequences[0, len(prompt_ids) :].tolist()
    if not args.ignore_end and token_ids[-1] in ends(model, tokenizer):
        token_ids.pop()
    return Answer(
        prompt_ids=prompt_ids,
        token_ids=token_ids,
        text=tokenizer.decode(token_ids, skip_special_tokens=True),
        token_s=clock.token_s,
        read_bytes=clock.read_bytes,
        top_logits=[top_five(logits[0]) for logits in output.logits] if args.logits else [],
    )


def ends(model: Any, tokenizer: Any) -> set[int]:  # noqa: ANN401
    """The tokens that end an answer."""
    ids = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(ids if isinstance(ids, list) else [ids])}


def top_five(logits: torch.Tensor) -> list[tuple[int, float]]:
    """(token, logit) of the likeliest."""
    top = logits.float().topk(5)
    return list(zip(top.indices.tolist(), top.values.tolist(), strict=True))


def main() -> int:
    """Answer the prompts of the command line one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--offload", type=parse_bytes, metavar="SIZE", help="Accelerate: bytes of weights kept in RAM")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("-p", "--prompt", action="append", required=True)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--ignore-end", action="store_true")
    parser.add_argument("--logits", action="store_true", help="tell the likeliest five tokens each time")
    args = parser.parse_args()
    folder = str(model_folder(args.model))
    with tempfile.TemporaryDirectory() as scratch:
        imported_s = import_family(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = load(args, folder, scratch)
        prompts = [encode(tokenizer, prompt, chat=args.chat) for prompt in args.prompt]
        answers = [answer(model, tokenizer, prompt, args) for prompt in prompts]
    from llmrun.hardware import process_memory

    written = process_counters()["write_bytes"]
    print_report(Report(imported_s, answers, process_memory().peak_rss_bytes, written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
