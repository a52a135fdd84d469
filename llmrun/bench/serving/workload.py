"""What is asked: prompts of random words, or those of a file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmrun.errors import UsageError

# Short and common, so that most tokenizers have a token for each of them together with the space before.
WORDS = tuple(
    """
    able about above across after again air all also always among and animal answer any apple area arm ask away back
    ball bank base be bed been before begin best better big bird black blue boat body book both box boy bread bring
    brother build business buy by call can car care carry case cat cause change child city class clear close cold
    color come common could country course cover cross cut dark day deep did door down draw drive drop dry during
    each early earth east easy eat end enough even every example eye face fact fall family far farm fast father feel
    feet few field fill find fine fire first fish five floor follow food foot force form found four free friend from
    full game gave get girl give glass go gold good got great green ground group grow half hand happen hard has have
    head hear heart heat help here high hold home horse hot hour house how hundred idea if in inside into iron is
    island just keep kind king knew know land language large last late laugh law lead learn leave left less let
    letter life light like line list little live long look love low machine made main make man many map mark may
    mean men mile milk mind money month moon more morning most mother mountain move much music must name near need
    never new next night north nothing now number object
    """.split()  # noqa: SIM905 - a list of 270 strings says the same on three times the lines
)


@dataclass(frozen=True)
class Request:
    """One prompt, and how many tokens its answer may have."""

    prompt: str
    max_tokens: int


def random_requests(count: int, n_words: int, max_tokens: int, seed: int | str) -> tuple[Request, ...]:
    """``count`` prompts of ``n_words`` random words; the same for the same seed.

    No two begin alike, but by chance, so that a server's prefix cache has nothing to give.
    """
    draw = random.Random(seed)
    return tuple(Request(" ".join(draw.choices(WORDS, k=n_words)), max_tokens) for _ in range(count))


def read_requests(path: Path, count: int | None, max_tokens: int) -> tuple[Request, ...]:
    """The first ``count`` prompts of a file of JSON lines, each an object with ``prompt``; all of them for ``None``.

    Raises:
        UsageError: ``file-unreadable``; ``bad-dataset``, a line is not such an object, or there are too few.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError("file-unreadable", f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError("bad-dataset", f"{path} is not UTF-8 text (byte {error.start:,})") from None
    prompts = list(_prompts(path, text))
    if len(prompts) < (count or 1):
        raise UsageError(
            "bad-dataset",
            f"{path} has {len(prompts):,} prompts, fewer than the {count or 1:,} that are asked for",
            hint=f"`--num-prompts {len(prompts)}`" if prompts else 'a line is `{"prompt": "Name a river."}`',
        )
    return tuple(Request(prompt, max_tokens) for prompt in prompts[:count])


def _prompts(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        prompt = value.get("prompt") if isinstance(value, dict) else None
        if not isinstance(prompt, str) or not prompt.strip() or not _is_unicode(prompt):
            raise UsageError(
                "bad-dataset",
                f"{path}, line {number:,}: not a JSON object with a text called `prompt`",
                hint='a line is `{"prompt": "Name a river."}`',
            )
        yield prompt


def _is_unicode(text: str) -> bool:
    """JSON can spell half of a surrogate pair, which no encoding can send."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
