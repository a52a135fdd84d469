"""``llmrun inspect`` measures for real, once; saves; and shows machines that are not here."""

import json

import pytest
from run_cli import llmrun, refused

from llmrun.hardware.hardware_file import load_hardware

SAYS_SO = "measuring this machine once"


def test_what_is_measured_is_kept_and_can_be_saved_and_shown_elsewhere(wide_checkpoint, tmp_path):
    env = {"LLMRUN_CACHE": tmp_path / "cache", "HF_HOME": tmp_path / "hf"}
    command = ("inspect", "--measure", "--path", wide_checkpoint, "--json")
    for limit_s in (7, 90):  # seven seconds are enough unless the machine is busy
        done = llmrun(*command, **env, LLMRUN_MEASURE_S=limit_s)
        assert done.returncode == 0, done.stderr
        assert f"{SAYS_SO}, at most {limit_s} s" in done.stderr
        speeds = json.loads(done.stdout)["hardware"]["speeds"]
        if speeds["complete"]:
            break
    assert speeds["complete"], speeds["notes"]
    assert speeds["disk"]["bytes_per_s"]["p50"] > 1e6
    assert speeds["devices"][0]["device"] == "cpu"

    saved = tmp_path / "host.json"
    again = llmrun("inspect", "--path", wide_checkpoint, "--save", saved, **env)
    assert (again.returncode, again.stderr) == (0, f"saved as {saved}\n")
    assert json.loads(saved.read_text())["speeds"] == speeds
    assert load_hardware(str(saved)).speeds.measured_at == speeds["measured_at"]

    shown = llmrun("inspect", "--hardware", saved, **env)
    assert f"speeds, measured {speeds['measured_at'][:10]}" in shown.stdout
    assert SAYS_SO not in shown.stderr


def test_nothing_to_read_is_told_and_not_kept(tmp_path):
    env = {"LLMRUN_CACHE": tmp_path / "cache", "HF_HOME": tmp_path / "hf", "LLMRUN_MEASURE_S": 0.2}
    for _ in range(2):
        done = llmrun("inspect", "--measure", **env)
        assert done.returncode == 0
        assert SAYS_SO in done.stderr
        words = " ".join(done.stdout.split())
        assert "disk: there are no weights under" in words
        assert "taken as 100 MB/s" in words


@pytest.mark.parametrize(
    ("args", "reference"),
    [
        (("--hardware", "rtx9999"), "bad-hardware-file"),
        (("--hardware", "rtx4090", "--measure"), "bad-option"),
        (("--hardware", "rtx4090", "--path", "."), "bad-option"),
    ],
)
def test_what_cannot_be_is_refused(args, reference):
    refused(llmrun("inspect", *args), 2, reference)


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    lines = refused(llmrun("inspect", "--hardware", "rtx4090", "--save", tmp_path / "no" / "f"), 5, "write-failed")
    assert "No such file or directory" in lines[0]


def test_a_bad_time_limit_is_refused(tmp_path):
    done = llmrun("inspect", "--refresh", LLMRUN_MEASURE_S="soon", LLMRUN_CACHE=tmp_path, HF_HOME=tmp_path)
    assert refused(done, 2, "bad-option")[0].startswith("LLMRUN_MEASURE_S=soon is not a number of seconds")
