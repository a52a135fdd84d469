"""Measuring: every figure is there and plausible, and each that cannot be had is told with what stands for it."""

import json
import sys
from dataclasses import replace

import pytest
from hosts import CPU_SPEED, HOST, weights_folder

from llmrun.errors import DeviceError, UsageError
from llmrun.hardware import measure as module
from llmrun.hardware.measure import (
    CAUTIOUS_DISK,
    CAUTIOUS_START_S,
    OUT_OF_TIME,
    Found,
    ask,
    assemble,
    cautious_speeds,
    limit_seconds,
    measure,
)
from llmrun.hardware.measuring import Request
from llmrun.hardware.speeds import DiskSpeed, Spread
from llmrun.hardware.timing import samples_s, spread
from llmrun.units import MIB

NO_GPU = replace(HOST, gpus=())
REQUEST = Request("/nowhere", (), "a processor", (), 1.0, 32 * MIB)
DISK = DiskSpeed(Spread(1e9, 2e9, 3e9), 1e9, 1e-4)


def says(*answers):
    lines = "\n".join(json.dumps({"part": part, "value": value}) for part, value in answers)
    return f"print({lines!r}, flush=True)\n"


def command(code):
    return (sys.executable, "-c", code)


def test_quantiles():
    assert spread([5.0]) == Spread(5.0, 5.0, 5.0)
    assert spread([float(n) for n in range(11)]) == Spread(1.0, 5.0, 9.0)


def test_samples_are_as_many_as_asked_for_however_short_the_time():
    assert len(samples_s(lambda: None, 1e-3, at_least=200)) >= 200


def test_one_sample_is_enough_of_work_that_takes_all_the_time():
    assert len(samples_s(lambda: None, -1.0, at_least=200)) == 1


def test_what_a_process_tells_is_taken_and_the_rest_it_prints_is_not():
    code = "print('Loading...')\n" + says(("start", 2.5), ("token", 0.001), ("note", "a note")) + "print('{\"part')"
    found = ask(REQUEST, 30.0, command(code))
    assert (found.start_s, found.token_s, found.notes, found.in_time) == (2.5, 0.001, ["a note"], True)


def test_a_process_that_fails_leaves_what_it_told_before():
    code = says(("start", 2.5)) + "raise SystemExit('out of memory')"
    found = ask(REQUEST, 30.0, command(code))
    assert found.start_s == 2.5
    assert found.notes == ["the process that measures failed: out of memory"]


def test_a_process_that_hangs_is_ended_and_leaves_what_it_told_before():
    found = ask(REQUEST, 1.0, command(says(("start", 2.5)) + "import time; time.sleep(60)"))
    assert (found.start_s, found.notes, found.in_time) == (2.5, [OUT_OF_TIME], False)


def test_a_process_that_cannot_be_started_is_told():
    assert "could not be started" in ask(REQUEST, 1.0, ("/nowhere/python",)).notes[0]


def test_all_that_is_missing_is_told_with_what_stands_in():
    speeds = assemble(HOST, DISK, Found(), ())
    assert speeds.startup_s == CAUTIOUS_START_S
    assert [device.device for device in speeds.devices] == ["cpu"]
    assert [note.split(": ")[0] for note in speeds.notes] == ["processor", "gpu:0", "start"]


def test_a_gpu_that_failed_is_told_once():
    note = "gpu:0 (a GPU) could not be measured and is left out: CUDA error"
    speeds = assemble(HOST, DISK, Found(start_s=2.0, devices=[CPU_SPEED], notes=[note]), ())
    assert speeds.notes == (note,)
    assert speeds.complete


def test_cautious_speeds_say_why_and_are_not_kept():
    speeds = cautious_speeds(NO_GPU, "the reason")
    assert speeds.notes[0] == "the reason"
    assert not speeds.complete


@pytest.mark.parametrize(
    ("fault", "note"),
    [
        (DeviceError("read-failed", "/x: cannot read at offset 0: EIO"), "disk: /x: cannot read"),
        (PermissionError(13, "Permission denied", "/x"), "disk: /x: Permission denied"),
    ],
)
def test_a_disk_that_cannot_be_measured_is_taken_as_slow(tmp_path, monkeypatch, fault, note):
    def fail(files, limit_s):
        raise fault

    monkeypatch.setattr(module, "measure_disk", fail)
    monkeypatch.setattr(module, "ask", lambda request, limit_s: Found(start_s=2.0, devices=[CPU_SPEED]))
    speeds = measure(weights_folder(tmp_path), NO_GPU, limit_s=1.0)
    assert speeds.disk == CAUTIOUS_DISK
    assert speeds.notes[0].startswith(note)
    assert speeds.notes[0].endswith("taken as 100 MB/s")
    assert not speeds.complete


@pytest.mark.parametrize(("nbytes", "says"), [(0, "no weights"), (5 * MIB, "only 5.0 MiB of weights")])
def test_too_little_to_read_is_told(tmp_path, monkeypatch, nbytes, says):
    asked = []
    monkeypatch.setattr(module, "ask", lambda request, limit_s: asked.append(request) or Found())
    speeds = measure(weights_folder(tmp_path, nbytes), NO_GPU, limit_s=1.0)
    assert says in speeds.notes[0]
    assert asked[0].files == ()


@pytest.mark.parametrize("text", ["", "0", "2.5", "3600"])
def test_the_time_limit_comes_from_the_environment(text):
    assert limit_seconds({"LLMRUN_MEASURE_S": text}) == float(text or 10)


@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", "3601", "1s"])
def test_a_bad_time_limit_is_told(text):
    with pytest.raises(UsageError, match="LLMRUN_MEASURE_S"):
        limit_seconds({"LLMRUN_MEASURE_S": text})
