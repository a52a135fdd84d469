"""``llmrun quantize``: write a model's weights in fewer bits, as a checkpoint of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmrun.cli import complete
from llmrun.cli.bar import progress
from llmrun.cli.options import Model, Ram, TrustRemoteCode, parse_size
from llmrun.errors import UsageError
from llmrun.units import format_bytes

if TYPE_CHECKING:
    from llmrun.checkpoint.recipe import Recipe
    from llmrun.checkpoint.spec import ModelSpec
    from llmrun.hub import LocalModel
    from llmrun.quantize.importance import Vector
    from llmrun.quantize.job import Job

DEFAULT_TEXT = "default"
_LEAST_TOKENS, _MOST_TOKENS = 64, 8192


@dataclass(frozen=True)
class Calibration:
    """The text that is run to see what matters, as tokens."""

    tokens: tuple[int, ...]
    trust_remote_code: bool

    @property
    def key(self) -> str:
        """Tells one text from another."""
        return hashlib.sha256(repr(self.tokens).encode()).hexdigest()[:16]


def quantize(
    model: Model = None,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            autocompletion=complete.formats,
            help="q4, q8, or a type of GGUF such as q5_k or q4_0.",
        ),
    ] = "q4",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", show_default="in the cache", help="The folder to make."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            metavar="FILE",
            help="Run the model over this text first and keep best what it uses; `default` is a text of llmrun's own.",
        ),
    ] = None,
    ram: Ram = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a model's weights in fewer bits; print the folder they are in."""
    from llmrun.checkpoint.read import read_spec
    from llmrun.checkpoint.recipe import check_source, recipe
    from llmrun.hub import resolve
    from llmrun.hub.store import find

    wanted = recipe(format_name)
    ram_bytes = parse_size("--ram", ram)
    text = _text(calibrate) if calibrate else None
    local = resolve(model, notify=_tell)
    spec = read_spec(local.folder, trust_remote_code=trust_remote_code)
    check_source(spec)
    calibration = _calibration(text, local.folder, trust_remote_code) if text else None
    job = _job(local, spec, wanted, output, calibration)
    if job.record is None or find(job.target) is None:
        _make(job, spec, calibration, ram_bytes)
    typer.echo(job.target)


def _job(
    local: LocalModel, spec: ModelSpec, wanted: Recipe, output: Path | None, calibration: Calibration | None
) -> Job:
    """The job; without a folder to make it in, one of llmrun's own, which the name of the model leads to."""
    from llmrun.hub import Origin
    from llmrun.hub.store import Record, models_folder, safe_name
    from llmrun.quantize.rounding_job import rounding_job

    key = calibration.key if calibration else None
    if output:
        return rounding_job(spec, wanted, output.expanduser().absolute(), calibration=key)
    base = local.folder.name if local.origin is Origin.FOLDER else local.name.rpartition("/")[2]
    name = f"{base}-{wanted.name}" + ("-calibrated" if calibration else "")
    made_from = rounding_job(spec, wanted, models_folder(), calibration=key).made_from
    target = models_folder() / f"{safe_name(name)}-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"
    record = Record(name, Origin.QUANTISED, spec.folder)
    return rounding_job(spec, wanted, target, record=record, calibration=key)


def _make(job: Job, spec: ModelSpec, calibration: Calibration | None, ram_bytes: int | None) -> None:
    from llmrun.hardware import default_budget, probe
    from llmrun.hardware.process import process_memory
    from llmrun.quantize.job import run  # with torch, which is part of what the process takes
    from llmrun.quantize.memory import chunk_weights
    from llmrun.quantize.report import becomes
    from llmrun.quantize.rounding_job import rounding

    if ram_bytes is None:
        ram_bytes = default_budget(probe(job.target.parent)).ram_bytes
    running_bytes = _running_bytes(spec, calibration) if calibration else 0
    weights = chunk_weights(ram_bytes, process_memory().rss_bytes, running_bytes)

    importance = partial(_importance, spec, calibration) if calibration else None
    with progress("writing") as bar:

        def begun(there: int, whole: int) -> Callable[[int], object]:
            _tell(f"{format_bytes(spec.nbytes)} to {becomes(job.files)}, in {job.partial} until it is done")
            return bar(there, whole)

        run(job, rounding(spec, importance, weights), begun)
    if job.record:
        _tell(f"`llmrun chat {job.record.name}` talks with it, `llmrun rm {job.record.name}` deletes it")


def _text(name: str) -> str:
    """The calibration text of that name.

    Raises:
        UsageError: ``bad-option``.
    """
    try:
        if name == DEFAULT_TEXT:
            return files("llmrun.quantize").joinpath("calibration.txt").read_text(encoding="utf-8")
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError("bad-option", f"--calibrate {name}: {reason}", hint="name a file of plain text") from None


def _calibration(text: str, folder: Path, trust_remote_code: bool) -> Calibration:
    from llmrun.engine.tokenizer import ChatTokenizer

    tokens = ChatTokenizer.load(folder, trust_remote_code=trust_remote_code).encode_text(text)[:_MOST_TOKENS]
    if len(tokens) < _LEAST_TOKENS:
        raise UsageError(
            "bad-option",
            f"the text of --calibrate is {len(tokens)} tokens long, too little to tell which columns matter",
            hint=f"give it {_LEAST_TOKENS} tokens at least, better some thousands",
        )
    return Calibration(tuple(tokens), trust_remote_code)


def _running_bytes(spec: ModelSpec, calibration: Calibration) -> int:
    from llmrun.engine.calibration import calibration_bytes

    return calibration_bytes(spec, len(calibration.tokens))


def _importance(spec: ModelSpec, calibration: Calibration) -> Mapping[str, Vector]:
    from llmrun.engine.calibration import column_importance

    tokens, trust = calibration.tokens, calibration.trust_remote_code
    with progress("running the text") as bar:
        step = bar(0, spec.n_layers + 1)
        return column_importance(spec, tokens, trust_remote_code=trust, done=lambda unit: step(1))


def _tell(line: str) -> None:
    typer.echo(line, err=True)
