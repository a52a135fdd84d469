"""One option in several values: ``--sweep ram=2GiB,4GiB,8GiB``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmrun.bench.counts import parse_counts
from llmrun.bench.row import Row
from llmrun.errors import UsageError
from llmrun.units import parse_bytes

RAM, VRAM, CONTEXT = "ram", "vram", "context"
MOST_TOKENS = 1 << 24  # a plain number above is an amount of memory: no process is that small
OPTIONS = (RAM, VRAM, CONTEXT)
_HINT = "write `--sweep ram=2GiB,4GiB,8GiB`, `--sweep vram=0,6GiB` or `--sweep context=1024-8192*2`"


@dataclass(frozen=True)
class Sweep:
    """The option that is swept and its values: amounts of memory as given, numbers of tokens."""

    option: str
    values: tuple[str, ...]


def parse_sweep(text: str) -> Sweep:
    """The sweep that ``OPTION=VALUE,VALUE`` stands for; a value that comes again is left out.

    Raises:
        UsageError: ``bad-option``, the option cannot be swept; ``bad-size``, a value is no amount of memory.
    """
    name, equals, values = text.partition("=")
    option = name.strip()
    if option not in OPTIONS or not equals:
        raise UsageError(
            "bad-option", f"--sweep {text!r} is none of {', '.join(f'{one}=...' for one in OPTIONS)}", hint=_HINT
        )
    if option == CONTEXT:
        counts = parse_counts("--sweep context=", values)
        if 0 in counts:
            raise UsageError("bad-option", f"--sweep {text!r} has a context of no tokens", hint=_HINT)
        return Sweep(option, tuple(dict.fromkeys(str(count) for count in counts)))
    amounts: dict[int, str] = {}
    for value in values.split(","):
        amounts.setdefault(_amount(option, value.strip(), text), value.strip())
    return Sweep(option, tuple(amounts.values()))


def swept_option(rows: Sequence[Row]) -> str:
    """The option that the rows' ``sweep`` values are of, which a row does not say."""
    values = [(row, row.sweep) for row in rows if row.sweep is not None]
    if all(value.isdecimal() and int(value) <= MOST_TOKENS for _, value in values):
        return CONTEXT
    of_ram = all(parse_bytes(value) == row.ram_budget_bytes for row, value in values)
    return RAM if of_ram or all(row.vram_budget_bytes is None for row, _ in values) else VRAM


def _amount(option: str, value: str, text: str) -> int:
    try:
        nbytes = parse_bytes(value)
    except ValueError:
        raise UsageError("bad-size", f"--sweep {text!r}: {value!r} is not an amount of memory", hint=_HINT) from None
    if option == RAM and not nbytes:
        raise UsageError("bad-size", f"--sweep {text!r}: no process runs in {value} of memory", hint=_HINT)
    return nbytes
