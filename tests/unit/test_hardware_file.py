"""Hardware files and presets: what is written is read again, and what is wrong is named."""

import json
from dataclasses import replace

import pytest
from hosts import HOST, SPEEDS

from llmrun.errors import UsageError
from llmrun.hardware import to_json
from llmrun.hardware.checks import faults
from llmrun.hardware.hardware_file import load_hardware, parse_hardware, save_hardware
from llmrun.hardware.presets import curve, preset, preset_names

WHOLE = replace(HOST, speeds=SPEEDS)


def changed(path, value):
    """The JSON of a good profile with one field changed; ``...`` takes it out."""
    whole = json.loads(to_json(WHOLE))
    *above, last = path
    part = whole
    for name in above:
        part = part[name]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return json.dumps(whole)


def message(text):
    with pytest.raises(UsageError) as caught:
        parse_hardware(text, "host.json")
    assert caught.value.reference == "bad-hardware-file"
    return caught.value.message


def test_what_is_saved_is_loaded_again(tmp_path):
    path = tmp_path / "host.json"
    save_hardware(WHOLE, path)
    assert load_hardware(str(path)) == WHOLE
    assert list(tmp_path.iterdir()) == [path]


def test_a_profile_without_speeds_or_disk_loads():
    assert parse_hardware(to_json(HOST), "host.json") == HOST


DISK, CPU, GPU = ("speeds", "disk"), ("speeds", "devices", 0), ("speeds", "devices", 1)


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        (("cpu", "name"), ..., "cpu.name is missing"),
        (("limits", 0, "limit_bytes"), ..., "limits[0].limit_bytes is missing"),
        (("limits",), [], "limits is empty"),
        (("limits", 0, "limit_bytes"), 10**17, "limits[0].limit_bytes is 100000000000000000"),
        (("limits", 0, "limit_bytes"), 0, "limits[0].limit_bytes is 0"),
        (("limits", 0, "available_bytes"), -1, "limits[0].available_bytes is -1"),
        (("cpu", "physical_cores"), 0, "cpu.physical_cores is 0"),
        (("cpu", "physical_cores"), 2.5, "cpu.physical_cores is 2.5"),
        (("gpus", 0, "total_bytes"), "8GiB", "gpus[0].total_bytes is '8GiB'"),
        (("schema",), 1, "schema is 1, this llmrun reads 2"),
        (("schema",), ..., "schema is null"),
        (("speed",), {}, "speed is no field of it"),
        ((*DISK, "shape"), [], "speeds.disk.shape is no field of it"),
        ((*DISK, "bytes_per_s", "p50"), -3, "speeds.disk.bytes_per_s.p50 is -3"),
        ((*DISK, "bytes_per_s", "p50"), 0, "speeds.disk.bytes_per_s.p50 is 0"),
        ((*DISK, "bytes_per_s", "p50"), 5e9, "speeds.disk.bytes_per_s falls"),
        ((*DISK, "bytes_per_s", "p90"), 2e15, "speeds.disk.bytes_per_s.p90 is 2000000000000000"),
        ((*DISK, "bytes_per_s", "p90"), float("inf"), "speeds.disk.bytes_per_s.p90 is inf"),
        ((*DISK, "request_s"), float("nan"), "speeds.disk.request_s is nan"),
        ((*DISK, "request_s"), True, "speeds.disk.request_s is True"),
        ((*DISK, "request_s"), None, "speeds.disk.request_s is None"),
        (("speeds", "startup_s"), 0, "speeds.startup_s is 0"),
        (("speeds", "reading_slowdown"), 0.5, "speeds.reading_slowdown is 0.5"),
        (("speeds", "devices"), [], "speeds.devices[0].device is missing"),
        ((*CPU, "device"), "gpu:0", "speeds.devices[0].device is gpu:0"),
        ((*GPU, "device"), "gpu:3", "speeds.devices has gpu:3, which is not among the gpus"),
        ((*GPU, "link"), None, "speeds.devices[1].link is missing"),
        ((*CPU, "weights"), [], "speeds.devices[0].weights is empty"),
        ((*CPU, "weights", 0, "tokens"), [2, 512], "speeds.devices[0].weights[0].tokens is [2, 512]"),
        ((*CPU, "weights", 0, "tokens"), [1, 1], "speeds.devices[0].weights[0].tokens is [1, 1]"),
        ((*CPU, "weights", 0, "bytes_per_s"), [1e9], "weights[0].bytes_per_s has 1 figures for 2"),
        ((*CPU, "weights", 0, "bytes_per_s"), [1e9, -1.0], "weights[0].bytes_per_s[1] is -1.0"),
        ((*CPU, "threads", 0, "threads"), 0, "speeds.devices[0].threads[0].threads is 0"),
        ((*CPU, "kv_flops_per_s"), 1e19, "speeds.devices[0].kv_flops_per_s is 1e+19"),
        (("limits", 0, "limit_bytes"), 10**400, "limits[0].limit_bytes is 1000"),
    ],
)
def test_what_is_wrong_is_named(path, value, found):
    assert found in message(changed(path, value))


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "3", "\x00", "[" * 100_000])
def test_what_is_no_profile_is_told(text):
    assert "it is no JSON" in message(text) or "schema is null" in message(text)


def test_many_faults_are_summed_up():
    text = to_json(WHOLE).replace('"p50"', '"median"').replace('"p10"', '"least"')
    assert message(text).endswith("is missing; and 3 more"), "of four spreads with two fields missing each"


@pytest.mark.parametrize("name", ["nothing-here", "missing.json", ""])
def test_a_file_that_is_not_there_is_told_with_the_presets(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        load_hardware(name)
    assert caught.value.reference == "bad-hardware-file"
    assert "raspberry-pi-5" in caught.value.hint


def test_files_that_are_no_text_or_far_too_large_are_not_parsed(tmp_path):
    binary, large = tmp_path / "binary", tmp_path / "large"
    binary.write_bytes(b"\xff\xfe\x00")
    with large.open("wb") as file:
        file.truncate(1 << 30)
    for path, says in ((binary, "no text"), (large, "bytes")):
        with pytest.raises(UsageError, match=says):
            load_hardware(str(path))


def test_a_file_that_cannot_be_saved_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        save_hardware(WHOLE, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_good_profile(name):
    profile = preset(name)
    assert list(faults(profile)) == []
    assert load_hardware(name) == profile == parse_hardware(to_json(profile), name)
    assert {gpu.device for gpu in profile.gpus} | {"cpu"} == {device.device for device in profile.speeds.devices}
    assert len(profile.notes) > 1, "the sources are told"


def test_the_presets_are_those_that_the_page_promises():
    promised = "rtx4090 rtx3060 gtx1650-laptop laptop-8gib laptop-16gib 2x-rtx3090 raspberry-pi-5"
    assert preset_names() == tuple(promised.split())
    assert len(preset("2x-rtx3090").gpus) == 2
    assert preset("raspberry-pi-5").gpus == ()


def test_a_curve_is_the_lower_of_memory_and_rate():
    found = dict(zip(curve("BF16", 2, 1e10, 1e11).tokens, curve("BF16", 2, 1e10, 1e11).bytes_per_s, strict=True))
    assert (found[1], found[8], found[16], found[512]) == (1e10, 1e10, 1e11 / 16, 1e11 / 512)
