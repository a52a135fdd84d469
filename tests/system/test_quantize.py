"""``llmrun quantize`` from outside."""

import json
import resource
from pathlib import Path

from run_cli import llmrun, refused


def test_into_a_folder_and_once_only(tiny_checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "made"
    done = llmrun("quantize", tiny_checkpoint, "--format", "q8", "-o", target)
    assert (done.returncode, done.stdout) == (0, f"{target}\n"), done.stderr
    assert "Q8_0" in done.stderr
    assert {path.name for path in tiny_checkpoint.iterdir()} <= {path.name for path in target.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    refused_lines(llmrun("quantize", tiny_checkpoint, "-o", target), 2, "output-exists")
    refused_lines(llmrun("quantize", target, "-o", tmp_path / "again"), 4, "already-quantized")


def test_into_the_cache_where_its_name_leads_to_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    cache = {"LLMRUN_CACHE": tmp_path}
    text = tmp_path / "text"
    text.write_text("a few words about nothing much " * 40)
    first = llmrun("quantize", tiny_checkpoint, "--calibrate", text, **cache)
    assert first.returncode == 0, first.stderr
    again = llmrun("quantize", tiny_checkpoint, "--calibrate", text, **cache)
    assert (again.stdout, again.stderr) == (first.stdout, "")  # found, not made again
    plain = llmrun("quantize", tiny_checkpoint, **cache)
    assert plain.stdout != first.stdout
    models = {one["name"]: one for one in json.loads(llmrun("list", "--json", **cache).stdout)["models"]}
    name = f"{tiny_checkpoint.name}-q4"
    assert {name, f"{name}-calibrated"} <= models.keys()
    assert models[name]["origin"] == "quantised"
    assert llmrun("rm", name, "--yes", **cache).returncode == 0
    assert not Path(plain.stdout.strip()).exists()
    assert Path(first.stdout.strip()).is_dir()


def test_what_cannot_be_done_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def attempt(*args: object) -> object:
        return llmrun("quantize", tiny_checkpoint, "-o", tmp_path / "made", *args)

    assert "q4, q8" in refused(attempt("--format", "q3"), 2, "bad-option")[-1]
    refused(attempt("--calibrate", tmp_path / "nothing"), 2, "bad-option")
    (tmp_path / "short").write_text("too short")
    assert "too little" in refused(attempt("--calibrate", tmp_path / "short"), 2, "bad-option")[0]
    assert "is enough" in refused(attempt("--ram", "64MiB"), 3, "quantize-over-budget")[-1]
    assert not (tmp_path / "made").exists()


def test_a_disk_that_is_full(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def few_bytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = llmrun("quantize", tiny_checkpoint, "-o", tmp_path / "made", preexec=few_bytes)
    refused_lines(done, 5, "disk-full")
    assert not (tmp_path / "made").exists()


def refused_lines(done, code: int, reference: str) -> None:
    """The error comes last; a line about what is to be done may come before it."""
    assert done.stdout == ""
    assert done.returncode == code, done.stderr
    assert f"error: {reference}\n" in done.stderr
    assert "Traceback" not in done.stderr
