"""The machine is busy where others compute, not where they wait."""

import psutil
import pytest

from llmrun.hardware.others import busy_note, others_share


@pytest.fixture
def spend(monkeypatch):
    """Let the processors spend so many seconds between two looks at their clocks."""

    def of(**seconds):
        before = psutil.cpu_times()
        after = before._replace(**{name: getattr(before, name) + spent for name, spent in seconds.items()})
        looks = iter([before, after])
        monkeypatch.setattr(psutil, "cpu_times", lambda percpu=False: next(looks))

    return of


@pytest.mark.parametrize(
    ("spent", "share"),
    [
        ({"idle": 4.0}, 0.0),
        ({"user": 1.0, "idle": 3.0}, 0.25),
        ({"user": 1.0, "system": 2.0, "idle": 1.0}, 0.75),
        pytest.param({"iowait": 4.0}, 0.0, marks=pytest.mark.skipif(not psutil.LINUX, reason="no such clock")),
        pytest.param({"iowait": 2.0, "user": 2.0}, 0.5, marks=pytest.mark.skipif(not psutil.LINUX, reason="as above")),
    ],
)
def test_waiting_for_a_disk_is_not_computing(spend, spent, share):
    spend(**spent)
    assert others_share(0.01) == pytest.approx(share)


def test_a_line_where_it_shows():
    assert busy_note(0.0) == busy_note(0.25) == ()
    (line,) = busy_note(0.634)
    assert line == "the machine is busy (others take 63% of the processor); `llmrun inspect --refresh` when it is not"
