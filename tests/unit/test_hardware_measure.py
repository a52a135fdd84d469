"""Measuring: every figure is there and plausible, and each that cannot be had is told with what stands for it."""

import json
import sys
from dataclasses import replace

import pytest
from hosts import FIGURES, HOST, weights_folder

from llmrun.errors import DeviceError, UsageError
from llmrun.hardware import measure as module
from llmrun.hardware.asking import OUT_OF_TIME, Found, ask
from llmrun.hardware.checks import faults
from llmrun.hardware.device_figures import CAUTIOUS_CPU
from llmrun.hardware.measure import (
    CAUTIOUS_DISK,
    CAUTIOUS_START_S,
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
REQUEST = Request("/nowhere", (), ("cpu",), limit_s=30.0, left_s=30.0)
SHORT = replace(REQUEST, limit_s=1.0, left_s=1.0)
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
    code = (
        "print('Loading...')\n" + says(("start", 2.5), ("cpu.layer_s", 0.001), ("note", "a note")) + "print('{\"part')"
    )
    found = ask(REQUEST, command(code))
    assert found == Found({"start": 2.5, "cpu.layer_s": 0.001}, ["a note"], True)


def test_a_process_that_fails_leaves_what_it_told_before():
    found = ask(REQUEST, command(says(("start", 2.5)) + "raise SystemExit('out of memory')"))
    assert found.figures == {"start": 2.5}
    assert found.notes == ["the process that measures failed: out of memory"]


def test_a_process_that_hangs_is_ended_and_leaves_what_it_told_before():
    found = ask(SHORT, command(says(("start", 0.5)) + "import time; time.sleep(60)"))
    assert found == Found({"start": 0.5}, [OUT_OF_TIME], False)


def test_a_process_that_imports_for_long_is_waited_for_and_heard():
    late = "import time; time.sleep(1)\n" + says(("start", 1.0), ("cpu.layer_s", 0.001)) + "time.sleep(60)"
    found = ask(replace(SHORT, left_s=0.1), command(late))
    assert found == Found({"start": 1.0, "cpu.layer_s": 0.001}, [OUT_OF_TIME], False)


def test_a_process_that_only_imports_is_not_waited_for_without_end():
    assert ask(replace(SHORT, limit_s=0.2, left_s=0.1), command("import time; time.sleep(60)")).notes == [OUT_OF_TIME]


def test_a_process_that_cannot_be_started_is_told():
    assert "could not be started" in ask(REQUEST, ("/nowhere/python",)).notes[0]


@pytest.mark.parametrize(("start_s", "end_s"), [(1.0, 7.0), (2.5, 7.0), (2.6, 7.1), (5.7, 10.2), (20.0, 24.5)])
def test_long_imports_leave_the_figures_their_part_of_the_time(start_s, end_s):
    assert replace(REQUEST, limit_s=10.0, left_s=7.0).end_s(start_s) == pytest.approx(end_s)


def test_a_process_ended_half_way_gives_what_it_told_and_cautious_figures_for_the_rest():
    told = [("start", 0.5), ("cpu.weights.BF16.1", 2e10), ("cpu.weights.BF16.512", 1e9), ("cpu.weights.BF16.64", 4e9)]
    speeds = assemble(NO_GPU, DISK, ask(SHORT, command(says(*told) + "import time; time.sleep(60)")), ())
    cpu = speeds.device("cpu")
    assert (cpu.weights[0].tokens, cpu.weights[0].bytes_per_s) == ((1, 64, 512), (2e10, 4e9, 1e9))
    assert [curve.bytes_per_s for curve in cpu.weights[1:]] == [(2e10, 2e9, 0.5e9), (2e10, 4e9, 1e9)]
    assert (cpu.memory_bytes_per_s.p50, cpu.layer_s, cpu.kv_bytes_per_s) == (
        2e10, CAUTIOUS_CPU.layer_s, CAUTIOUS_CPU.kv_bytes_per_s,
    )  # fmt: skip
    assert (speeds.startup_s, speeds.complete, speeds.notes[0]) == (0.5, False, OUT_OF_TIME)
    for missing in ("attention, the time of a layer", "reading memory", "F16 and F32", "token", "reading beside"):
        assert any(missing in note for note in speeds.notes)
    assert list(faults(replace(NO_GPU, speeds=speeds))) == []


DECISIVE = (
    "cpu.weights.BF16.1",
    "cpu.weights.BF16.512",
    "cpu.kv_bytes_per_s",
    "cpu.attention_flops_per_s",
    "cpu.layer_s",
)


def test_what_decides_is_enough_to_be_kept():
    few = {path: FIGURES[path] for path in (*DECISIVE, "cpu.weights.BF16.64", "cpu.kv_flops_per_s")}
    assert assemble(NO_GPU, DISK, Found(few, in_time=False), ()).complete
    for path in few:
        assert not assemble(NO_GPU, DISK, Found({other: few[other] for other in few if other != path}), ()).complete


def test_nothing_is_said_where_all_is_there():
    speeds = assemble(HOST, DISK, Found(dict(FIGURES)), ())
    assert (speeds.notes, speeds.complete) == ((), True)
    assert [device.device for device in speeds.devices] == ["cpu", "gpu:0"]


def test_a_dtype_with_one_point_says_too_little():
    told = {path: rate for path, rate in FIGURES.items() if path not in ("cpu.weights.F32.16", "cpu.weights.F32.512")}
    speeds = assemble(HOST, DISK, Found(told), ())
    assert speeds.notes == ("processor: F32 not measured; taken as BF16 with half of its FLOP/s",)


def test_all_that_is_missing_is_told_with_what_stands_in():
    speeds = assemble(HOST, DISK, Found(), ())
    assert speeds.startup_s == CAUTIOUS_START_S
    assert [device.device for device in speeds.devices] == ["cpu"]
    assert [note.split(": ")[0] for note in speeds.notes] == ["processor", "gpu:0", "start"]


def test_a_gpu_that_failed_is_told_once_and_left_out_though_it_told_figures():
    speeds = assemble(HOST, DISK, Found({**FIGURES, "gpu:0.failed": "CUDA error"}), ())
    assert speeds.notes == ("gpu:0 (a GPU) could not be measured and is left out: CUDA error",)
    assert [device.device for device in speeds.devices] == ["cpu"]
    assert speeds.complete


def test_a_processor_that_failed_on_the_way_is_told_and_used():
    speeds = assemble(NO_GPU, DISK, Found({**FIGURES, "cpu.failed": "no memory"}), ())
    assert speeds.notes == ("processor: measuring ended early: no memory",)
    assert speeds.device("cpu").weights[0].bytes_per_s[0] == FIGURES["cpu.weights.BF16.1"]


def test_a_gpu_whose_time_ran_out_is_not_kept_as_missing():
    told = {path: figure for path, figure in FIGURES.items() if path.startswith(("start", "cpu"))}
    speeds = assemble(HOST, DISK, Found(told), ())
    assert speeds.notes == ("gpu:0: not measured, and not planned with",)
    assert not speeds.complete


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
    def fail(files, limit_s, *, brief):
        raise fault

    monkeypatch.setattr(module, "measure_disk", fail)
    monkeypatch.setattr(module, "ask", lambda request: Found(dict(FIGURES)))
    speeds = measure(weights_folder(tmp_path), NO_GPU, limit_s=1.0)
    assert speeds.disk == CAUTIOUS_DISK
    assert speeds.notes[0].startswith(note)
    assert speeds.notes[0].endswith("taken as 100 MB/s")
    assert not speeds.complete


@pytest.mark.parametrize(("nbytes", "says"), [(0, "no weights"), (5 * MIB, "only 5.0 MiB of weights")])
def test_too_little_to_read_is_told(tmp_path, monkeypatch, nbytes, says):
    asked = []
    monkeypatch.setattr(module, "ask", lambda request: asked.append(request) or Found())
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
