"""Reading bandwidth: what is counted, what is read, and what happens when reading fails."""

import errno
import os

import pytest
from hosts import weights_folder

from llmrun.errors import DeviceError
from llmrun.hardware import measure_disk as module
from llmrun.hardware.direct_io import WeightFile
from llmrun.hardware.measure_disk import (
    Blocks,
    Done,
    Reading,
    checkpoint_files,
    measure_disk,
    opened,
    sample_bytes,
)
from llmrun.units import MIB


def test_a_steady_reading_has_one_rate():
    reading = Reading(10.0, 11.0, tuple(Done(10.0 + 0.1 * n, 100) for n in range(1, 12)))
    assert reading.rates(5) == pytest.approx([1000.0] * 5)


def test_a_reading_that_slows_down_shows_it():
    done = (*(Done(0.1 * n, 100) for n in range(1, 11)), *(Done(1 + 0.2 * n, 100) for n in range(1, 6)))
    assert Reading(0.0, 2.0, done).rates(2) == pytest.approx([1000.0, 500.0])


def test_requests_longer_than_a_part_leave_no_part_empty():
    assert Reading(0.0, 0.1, (Done(2.0, 100), Done(4.0, 100))).rates(4) == pytest.approx([50.0] * 4)


def test_nothing_is_read_twice_before_all_has_been_read(tmp_path):
    files = checkpoint_files(weights_folder(tmp_path, 130 * MIB + 4096))
    with opened(files) as weights:
        blocks = Blocks(weights)
        taken = [blocks.take(MIB)[1] for _ in range(131)]
        again = [blocks.take(MIB)[1] for _ in range(131)]
    assert sorted(taken) == sorted(again) == [n * MIB for n in range(131)]
    assert taken != sorted(taken)


def test_files_are_found_through_links_once_and_the_largest_first(tmp_path):
    small, large = weights_folder(tmp_path / "a", 5), weights_folder(tmp_path / "b", 9)
    (tmp_path / "b" / "link.safetensors").symlink_to(small / "model.safetensors")
    (tmp_path / "b" / "dangling.safetensors").symlink_to(tmp_path / "gone")
    weights_folder(tmp_path / "b" / "empty", 0)
    files = checkpoint_files(tmp_path)
    assert files == [large / "model.safetensors", small / "model.safetensors"]
    assert sample_bytes(files) == 14
    assert checkpoint_files(tmp_path / "gone") == []


def test_a_disk_is_measured_in_several_shapes(tmp_path):
    speed = measure_disk(checkpoint_files(weights_folder(tmp_path)), 0.2)
    assert speed.bytes_per_s.p10 > 0
    assert speed.single_bytes_per_s > 0
    assert speed.request_s > 0
    assert (16 * MIB, 4) in {(shape.block_bytes, shape.in_flight) for shape in speed.shapes}
    assert len(speed.shapes) > 2


def test_a_file_system_without_direct_io_is_measured_too(tmp_path, monkeypatch):
    plain = os.open

    def refuse(path, flags, *rest, **more):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain(path, flags, *rest, **more)

    files = checkpoint_files(weights_folder(tmp_path))
    monkeypatch.setattr(os, "open", refuse)
    with opened(files) as weights:
        assert not weights[0].direct
    assert measure_disk(files, 0.1).bytes_per_s.p50 > 0


def test_a_slow_disk_is_not_asked_for_more_than_the_time_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BURST_SHARE", 0.0)  # one round of requests tells how slow it is
    slept = []

    def slow(self, target, offset):
        slept.append(threading_sleep(0.02))
        return min(len(target), self.nbytes - offset) // 1024

    from time import sleep as threading_sleep

    monkeypatch.setattr(WeightFile, "read", slow)
    speed = measure_disk(checkpoint_files(weights_folder(tmp_path)), 0.1)
    assert {(shape.block_bytes, shape.in_flight) for shape in speed.shapes} == {(16 * MIB, 1), (16 * MIB, 4)}


def test_a_failing_disk_is_an_error_with_file_and_offset(tmp_path, monkeypatch):
    def fail(self, target, offset):
        raise DeviceError("read-failed", f"{self.path}: cannot read at offset {offset:,}: Input/output error")

    monkeypatch.setattr(WeightFile, "read", fail)
    with pytest.raises(DeviceError, match="offset"):
        measure_disk(checkpoint_files(weights_folder(tmp_path)), 0.1)
