"""Measured speeds are kept for the host and disk they were measured on, and for no other."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hosts import HOST, SPEEDS, weights_folder

from llmrun.hardware import measure as measuring
from llmrun.hardware import speeds_cache
from llmrun.hardware.disk import probe_disk
from llmrun.hardware.host_key import host_key
from llmrun.hardware.others import busy_note
from llmrun.hardware.speeds_cache import cache_path, cached_speeds, in_brief, speeds_for, store_speeds, with_disk
from llmrun.units import MIB


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LLMRUN_MEASURE_S", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def host(tmp_path):
    return replace(HOST, disk=probe_disk(tmp_path))


def of(profile):
    return replace(SPEEDS, host=host_key(profile))


def changed(host, change):
    """The kept file with something else in it."""
    assert store_speeds(host, of(host))
    path = cache_path(host)
    path.write_text(change(path.read_text()))


def test_what_is_kept_is_found_again(host, cache):
    assert cached_speeds(host) is None
    assert store_speeds(host, of(host))
    assert cached_speeds(host) == of(host)
    assert [path.suffix for path in (cache / "speeds").iterdir()] == [".json"]


@pytest.mark.parametrize(
    "other",
    [
        {"cpu": replace(HOST.cpu, name="another")},
        {"cpu": replace(HOST.cpu, physical_cores=1)},
        {"gpus": ()},
        {"gpus": (replace(HOST.gpus[0], uuid="GPU-2"),)},
        {"limits": (replace(HOST.limits[0], limit_bytes=64 << 30),)},
        {"disk": None},
    ],
)
def test_another_host_or_disk_finds_nothing(host, other):
    store_speeds(host, of(host))
    assert cached_speeds(replace(host, **other)) is None


def test_memory_that_is_free_now_makes_no_other_host(host):
    store_speeds(host, of(host))
    assert cached_speeds(replace(host, limits=(replace(HOST.limits[0], available_bytes=5),))) == of(host)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("torch 2", "torch 1"), "another host"),
        (lambda text: text.replace("a processor", "another processor", 1), "another host"),
        (lambda text: text.replace('"schema": 2', '"schema": 99'), "another version"),
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "[]", "cannot be read"),
        (lambda text: text.replace('"startup_s": 2.5', '"startup_s": -2.5'), "speeds.startup_s is -2.5"),
        (lambda text: text.replace('"startup_s": 2.5', '"startup_s": NaN'), "speeds.startup_s is nan"),
        (lambda text: text.replace('"gpu:0"', '"gpu:7"'), "not among the gpus"),
    ],
)
def test_what_cannot_be_trusted_is_told_and_not_used(host, change, says):
    changed(host, change)
    told = []
    assert cached_speeds(host, told.append) is None
    assert len(told) == 1
    assert says in told[0]


def test_a_cache_that_cannot_be_written_is_no_error(host, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "file"))
    assert not store_speeds(host, of(host))
    assert cached_speeds(host) is None


@pytest.fixture
def measured(monkeypatch):
    """How often ``measure`` was called; it gives whole figures at once."""
    calls = []

    def measure(path, profile, *, limit_s, own=None, notify=None):
        calls.append(limit_s)
        return replace(of(profile), notes=("a note",))

    monkeypatch.setattr(measuring, "measure", measure)
    return calls


def test_a_run_measures_once(tmp_path, measured):
    folder, told = weights_folder(tmp_path / "model"), []
    first = speeds_for(HOST, folder, told.append)
    assert told == ["measuring this machine once, at most 10 s", "a note"]
    assert speeds_for(HOST, folder, told.append) == first
    assert (measured, len(told)) == ([10.0], 2)


def test_figures_that_are_not_whole_are_not_kept(tmp_path, measured, monkeypatch):
    monkeypatch.setattr(measuring, "measure", lambda *rest, **more: replace(SPEEDS, complete=False))
    folder = weights_folder(tmp_path / "model")
    speeds_for(HOST, folder, lambda note: None)
    assert cached_speeds(with_disk(HOST, folder)) is None


@pytest.mark.parametrize(("nbytes", "limit"), [(5 * MIB, "10"), (70 * MIB, "0")])
def test_nothing_is_measured_for_a_tiny_model_or_where_it_is_forbidden(tmp_path, measured, monkeypatch, nbytes, limit):
    monkeypatch.setenv("LLMRUN_MEASURE_S", limit)
    speeds = speeds_for(HOST, weights_folder(tmp_path / "model", nbytes), lambda note: None)
    assert measured == []
    assert "nothing was measured" in speeds.notes[0]


def test_kept_figures_are_used_where_measuring_is_forbidden(tmp_path, measured, monkeypatch):
    folder = weights_folder(tmp_path / "model")
    first = speeds_for(HOST, folder, lambda note: None)
    monkeypatch.setenv("LLMRUN_MEASURE_S", "0")
    assert speeds_for(HOST, folder, lambda note: None) == first


def test_a_cache_that_cannot_be_written_is_told(tmp_path, measured, monkeypatch):
    monkeypatch.setattr(speeds_cache, "store_speeds", lambda profile, speeds: False)
    told = []
    speeds_for(HOST, weights_folder(tmp_path / "model"), told.append)
    assert any("cannot be kept" in note for note in told)


def test_looking_kept_speeds_up_loads_no_torch():
    code = (
        "import sys\n"
        "from llmrun.hardware import probe\n"
        "from llmrun.hardware.measure import cautious_speeds\n"
        "from llmrun.hardware.speeds_cache import cached_speeds, store_speeds\n"
        "host = probe()\n"
        "print(store_speeds(host, cautious_speeds(host, 'x')), bool(cached_speeds(host)))\n"
        "print(*{'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_the_kept_file_has_a_schema_and_the_time(host):
    store_speeds(host, of(host))
    value = json.loads(cache_path(host).read_text())
    assert (value["schema"], value["speeds"]["measured_at"]) == (2, SPEEDS.measured_at)


def test_many_notes_are_told_in_brief_with_their_cause():
    busy = busy_note(0.5)[0]
    assert in_brief(["one", busy]) == ["one", busy]
    said, cause = in_brief(["one", "two", busy])
    assert said.startswith("2 figures are missing")
    assert cause == busy
    assert len(in_brief(["one", "two", "three"])) == 1
