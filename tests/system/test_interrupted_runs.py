"""What ends a run that is under way: Ctrl-C, a disk that fails, a reader of the output that leaves, a memory limit."""

import json
import os
import pty
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_cli import failed, llmrun, refused, start

from llmrun.checkpoint import read_spec
from llmrun.planner.memory import account
from llmrun.planner.plan import CPU, Placement
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

Environment = dict[str, object]

CONTEXT = 512
INTERRUPTED = "error: interrupted\nstopped by the user\n"
CGROUP = Path("/sys/fs/cgroup")


def streaming_ram_bytes(folder: Path) -> int:
    """A limit under which half of the model's layers stay on disk."""
    spec = read_spec(folder)
    resident = [Placement(unit.name, CPU, CPU) for unit in spec.units]
    (memory,) = account(spec, Workload(context_tokens=CONTEXT), Budget(GIB), resident)
    return memory.nbytes - spec.nbytes // 2


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to see which files are open")
def test_interrupt_at_load(wide_checkpoint: Path, measured: Environment) -> None:
    process = start("chat", wide_checkpoint, "-p", "hi", **measured)
    weights = str(wide_checkpoint / "model.safetensors")

    def reads_weights() -> bool:
        try:
            return any(str(link.readlink()) == weights for link in Path(f"/proc/{process.pid}/fd").iterdir())
        except FileNotFoundError:  # one was closed meanwhile
            return False

    wait_until(reads_weights)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", INTERRUPTED)
    assert process.returncode == 130


def test_interrupt_in_prefill_which_shows_its_progress(wide_checkpoint: Path, measured: Environment) -> None:
    terminal, stderr = pty.openpty()
    prompt = "word " * 1500
    screen = {"TERM": "xterm", "COLUMNS": 80}
    process = start("chat", wide_checkpoint, "-p", prompt, "--context", 8192, stderr=stderr, **screen, **measured)
    os.close(stderr)
    seen = b""
    while not re.search(rb"reading \d,\d{3} tokens", seen):
        seen += os.read(terminal, 1000)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    told = b"".join(iter(lambda: read_or_nothing(terminal), b"")).decode()
    os.close(terminal)
    assert (process.returncode, out) == (130, "")
    assert told.replace("\r\n", "\n").endswith(INTERRUPTED)
    assert "Traceback" not in told


def read_or_nothing(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1000)
    except OSError:  # Linux says so when the other side is closed
        return b""


def test_interrupt_in_decode_keeps_the_answer(wide_checkpoint: Path, measured: Environment) -> None:
    process = start("chat", wide_checkpoint, "-p", "hi", "--context", 4096, **measured)
    begun = process.stdout.read(3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"[ab]{3,}\n", begun + out)
    assert err == INTERRUPTED


def test_a_disk_that_fails_in_an_answer(wide_checkpoint: Path, measured: Environment, tmp_path: Path) -> None:
    folder = shutil.copytree(wide_checkpoint, tmp_path / "wide")
    weights = folder / "model.safetensors"
    ram_bytes = streaming_ram_bytes(folder)
    process = start("chat", folder, "-p", "hi", "--context", CONTEXT, "--ram", ram_bytes, **measured)
    begun = process.stdout.read(3)
    os.truncate(weights, 4096)
    out, err = process.communicate(timeout=60)
    lines = failed(process.returncode, err, 5, "read-failed")
    # of a layer, or of a row of the embedding
    why = r"(cannot read at offset [\d,]+: |the file ends before offset [\d,]+$)"
    assert re.match(rf"{re.escape(str(weights))}: {why}", lines[0])
    assert re.fullmatch(r"[ab]{3,}\n", begun + out)


def test_a_reader_that_leaves(wide_checkpoint: Path, measured: Environment) -> None:
    process = start("chat", wide_checkpoint, "-p", "hi", "--context", 4096, **measured)
    assert len(process.stdout.read(5)) == 5
    process.stdout.close()  # as `head -c 5` does
    with process:
        assert process.stderr.read() == ""
    assert process.returncode == 141


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Callable[[], None]]:
    """A control group of that size; gives what puts a process into it."""
    version_2 = (CGROUP / "cgroup.controllers").exists()
    group = CGROUP / ("" if version_2 else "memory") / f"llmrun-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if version_2 else "memory.limit_in_bytes")).write_text(str(limit_bytes))
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no control group for memory can be made: {error}")
    try:
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_a_streamed_model_keeps_to_the_limit_that_it_was_given(wide_checkpoint: Path, measured: Environment) -> None:
    ram_bytes = streaming_ram_bytes(wide_checkpoint)
    options = ["-p", "hi", "--max-tokens", 20, "--context", CONTEXT, "--json", "--ram", ram_bytes]
    with memory_group(ram_bytes) as enter:
        done = llmrun("chat", wide_checkpoint, *options, preexec=enter, **measured)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["new_tokens"] == 20
    peak_bytes = answer["memory"]["cpu"]["peak_bytes"]
    assert (
        peak_bytes <= answer["predicted"]["peak_bytes"]["cpu"] <= answer["memory"]["cpu"]["budget_bytes"] == ram_bytes
    )
    assert answer["read_bytes_per_token"]["disk"] > 20 * MIB


def test_without_a_limit_the_control_group_is_the_limit(wide_checkpoint: Path, measured: Environment) -> None:
    unlimited = {name: value for name, value in measured.items() if name != "LLMRUN_RAM"}
    with memory_group(900 * MIB) as enter:
        done = llmrun("chat", wide_checkpoint, "-p", "hi", preexec=enter, **unlimited)
    amount = re.search(r"within ([\d.]+) MiB", refused(done, 3, "plan-over-budget")[0])
    assert amount
    assert 300 < float(amount[1]) <= 900 - 512
