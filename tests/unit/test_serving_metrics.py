"""The figures of `llmrun compare` on literal timings, and what is asked, when, of whom."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrun.bench.serving.load import Drive
from llmrun.bench.serving.metrics import distribution, is_good, most_at_once, summarise
from llmrun.bench.serving.options import check_positive, parse_objectives, parse_percentiles, split_targets
from llmrun.bench.serving.outcome import Answer, Failure
from llmrun.bench.serving.schedule import arrival_times
from llmrun.bench.serving.target import Target, parse_targets
from llmrun.bench.serving.workload import WORDS, Request, random_requests, read_requests
from llmrun.errors import UsageError

# Sent at 10 s, 0.5 s to the first of three tokens, then gaps of 0.1 and 0.3 s, and 0.1 s to the word that it ends.
ANSWER = Answer(10.0, (10.5, 10.6, 10.9), 11.0, 7, 3, "usage")
SHORT = Answer(10.25, (11.25,), 11.25, 5, 1, "usage")


def test_the_times_of_an_answer():
    assert ANSWER.ttft_s == 0.5
    assert ANSWER.e2el_s == 1.0
    assert ANSWER.tpot_s == 0.25
    assert ANSWER.itl_s == pytest.approx((0.1, 0.3))


def test_one_token_has_no_tpot_and_no_gaps():
    assert (SHORT.ttft_s, SHORT.e2el_s, SHORT.tpot_s, SHORT.itl_s) == (1.0, 1.0, None, ())


def test_tpot_is_by_tokens_not_by_chunks():
    assert Answer(0.0, (1.0, 2.0), 5.0, None, 9, "usage").tpot_s == 0.5


def test_figures_of_a_load():
    outcomes = (ANSWER, Failure(10.0, 10.1, "HTTP 500"), SHORT, Failure(10.0, 10.1, "x"), Failure(10.0, 10.1, "x"))
    found = summarise(Drive(outcomes, 2.0, 5), {"ttft": 500.0, "tpot": 250.0}, (50, 100))
    assert (found.duration_s, found.completed, found.failed) == (2.0, 2, 3)
    assert (found.total_input_tokens, found.total_output_tokens) == (12, 4)
    assert (found.request_throughput, found.request_goodput) == (1.0, 0.5)
    assert (found.output_throughput, found.total_token_throughput) == (2.0, 8.0)
    assert found.ttft.mean == found.ttft.median == 750.0
    assert found.ttft.std == 250.0  # of the population
    assert found.ttft.percentiles == ((50, 750.0), (100, 1000.0))
    assert (found.tpot.mean, found.tpot.std) == (250.0, 0.0)  # the answer of one token has none
    assert (found.itl.mean, found.itl.median) == (pytest.approx(200.0), pytest.approx(200.0))
    assert found.e2el.mean == 1000.0
    assert list(found.errors.items()) == [("x", 2), ("HTTP 500", 1)]
    assert found.counted_by == ("usage",)


def test_nothing_answered_is_no_figure_and_no_nought():
    found = summarise(Drive((Failure(0.0, 1.0, "gone"),), 1.0, 1), {}, (99,))
    assert (found.completed, found.failed, found.request_throughput) == (0, 1, 0.0)
    assert found.ttft is found.tpot is found.itl is found.e2el is found.request_goodput is None


def test_input_tokens_that_one_server_does_not_count_are_not_known():
    found = summarise(Drive((ANSWER, Answer(0.0, (1.0,), 1.0, None, 1, "chunks")), 1.0, 2), {}, ())
    assert found.total_input_tokens is found.total_token_throughput is None
    assert found.counted_by == ("chunks", "usage")


@pytest.mark.parametrize(
    ("objectives", "good"),
    [
        ({"ttft": 500.0}, True),
        ({"ttft": 499.9}, False),
        ({"tpot": 250.0, "e2el": 1000.0}, True),
        ({"tpot": 249.9, "e2el": 1000.0}, False),
        ({"ttft": 500.0, "e2el": 999.0}, False),
    ],
)
def test_good_requests_take_no_more_than_each_objective(objectives, good):
    assert is_good(ANSWER, objectives) is good


def test_one_token_meets_any_tpot():
    assert is_good(SHORT, {"tpot": 0.001})


def test_most_at_once():
    spans = ((0.0, 4.0), (1.0, 2.0), (2.0, 3.0), (5.0, 6.0))
    assert most_at_once(Answer(sent, (end,), end, None, 1, "usage") for sent, end in spans) == 2
    assert most_at_once(()) == 0


@given(
    st.lists(st.floats(0, 1e4), min_size=1, max_size=30),
    st.lists(st.floats(0, 100), min_size=1, max_size=4, unique=True),
)
def test_percentiles_lie_between_the_two_nearest_samples(samples_s, percentiles):
    found = distribution(samples_s, percentiles)
    ordered = sorted(one * 1000 for one in samples_s)
    for p, value in found.percentiles:
        place = p / 100 * (len(ordered) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        assert value == pytest.approx(low + (high - low) * (place - math.floor(place)), rel=1e-9, abs=1e-9)
    assert ordered[0] <= found.median <= ordered[-1]


@pytest.mark.parametrize("burstiness", [0.1, 1.0, 5.0, math.inf])
def test_arrivals_keep_the_rate_whatever_the_burstiness(burstiness):
    times = arrival_times(20, 4.0, burstiness, seed=1)
    assert len(times) == 20
    assert list(times) == sorted(times)
    assert times[0] > 0
    assert times[-1] == pytest.approx(5.0)
    assert times == arrival_times(20, 4.0, burstiness, seed=1)


def test_arrivals_differ_by_seed_and_are_evener_with_more_burstiness():
    def spread(times):
        gaps = [after - before for before, after in pairwise(times)]
        return max(gaps) - min(gaps)

    assert arrival_times(9, 1.0, 1.0, 0) != arrival_times(9, 1.0, 1.0, 1)
    bursts, poisson, even = (arrival_times(200, 1.0, burstiness, 0) for burstiness in (0.1, 1.0, 100.0))
    assert spread(bursts) > spread(poisson) > spread(even)
    assert arrival_times(4, 2.0, math.inf, 0) == (0.5, 1.0, 1.5, 2.0)


def test_an_infinite_rate_is_all_at_once():
    assert arrival_times(3, math.inf, 1.0, 0) == (0.0, 0.0, 0.0)


def test_random_prompts_are_of_that_many_words_and_the_same_again():
    requests = random_requests(5, 12, 3, seed=4)
    assert requests == random_requests(5, 12, 3, seed=4) != random_requests(5, 12, 3, seed=5)
    assert all(len(one.prompt.split(" ")) == 12 and one.max_tokens == 3 for one in requests)
    assert len({one.prompt for one in requests}) == 5
    assert len(WORDS) == len(set(WORDS)) > 200


def test_the_prompts_of_a_file(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "one\\ntwo"}\n\n{"prompt": "zwölf", "other": 1}\n', encoding="utf-8")
    assert read_requests(file, None, 9) == (Request("one\ntwo", 9), Request("zwölf", 9))
    assert read_requests(file, 1, 9) == (Request("one\ntwo", 9),)


@pytest.mark.parametrize(
    ("text", "count", "says"),
    [
        ("", None, "0 prompts"),
        ('{"prompt": "a"}', 2, "1 prompts, fewer than the 2"),
        ('{"prompt": "a"}\nnot json', None, "line 2"),
        ('{"prompt": ""}', None, "line 1"),
        ('{"prompt": 3}', None, "line 1"),
        ('["prompt"]', None, "line 1"),
        ('{"prompt": "\\ud800"}', None, "line 1"),
        ("[" * 100_000, None, "line 1"),
        ("\udcff", None, "not UTF-8"),
    ],
)
def test_a_file_of_no_prompts_is_refused(tmp_path, text, count, says):
    file = tmp_path / "prompts.jsonl"
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UsageError, match=says) as error:
        read_requests(file, count, 9)
    assert error.value.reference == "bad-dataset"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError) as error:
        read_requests(tmp_path / "none", None, 9)
    assert error.value.reference == "file-unreadable"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("llmrun", Target("llmrun")),
        ("llmrun:qwen3:8b", Target("llmrun:qwen3:8b", model="qwen3:8b")),
        ("mine=llmrun:./a=b", Target("mine", model="./a=b")),
        ("http://a:8000", Target("a:8000", "http://a:8000/v1/")),
        ("http://a:8000/v1", Target("a:8000", "http://a:8000/v1/")),
        ("https://a/deep/v1/", Target("a/deep", "https://a/deep/v1/")),
        ("https://a/deep?x=y#z", Target("a/deep", "https://a/deep/v1/")),
        ("tgi=http://[::1]:80/", Target("tgi", "http://[::1]/v1/")),
    ],
)
def test_targets(text, target):
    assert parse_targets([text]) == (target,)


def test_a_password_is_kept_for_the_server_and_not_shown():
    (target,) = parse_targets(["http://me:secret@a:1"])
    assert "me:secret@" in target.url
    assert (target.label, target.shown_url) == ("a:1", "http://a:1/v1/")


def test_the_same_target_again_has_a_label_of_its_own():
    assert [one.label for one in parse_targets(["llmrun", "http://a:1", "llmrun"])] == ["llmrun", "a:1", "llmrun (2)"]


@pytest.mark.parametrize("text", ["", "vllm", "localhost:8000", "ftp://a", "http://", "http://a:x", "=http://a", "a="])
def test_what_is_no_target(text):
    with pytest.raises(UsageError) as error:
        parse_targets([text])
    assert error.value.reference == "bad-option"
    assert error.value.hint


def test_objectives_may_follow_the_option_as_in_vllm():
    targets, more = split_targets(["llmrun", "tpot:50", "http://a:1", "e2el:9e3"])
    assert (targets, more) == (["llmrun", "http://a:1"], ["tpot:50", "e2el:9e3"])
    assert parse_objectives(["ttft:500", *more]) == {"ttft": 500.0, "tpot": 50.0, "e2el": 9000.0}


@pytest.mark.parametrize("texts", [["ttft:500 tpot:50"], ["ttft:500,tpot:50"], ["ttft:500", "tpot:50"]])
def test_objectives(texts):
    assert parse_objectives(texts) == {"ttft": 500.0, "tpot": 50.0}
    assert parse_objectives([]) == {}


@pytest.mark.parametrize("text", ["", "ttft", "ttft:", "ttft:0", "ttft:-1", "ttft:nan", "itl:5", "ttft:1 tpot"])
def test_what_is_no_objective(text):
    with pytest.raises(UsageError, match="is not an objective"):
        parse_objectives([text])


def test_percentiles_in_order_and_once():
    assert parse_percentiles("99, 50,99.9,50") == (50, 99, 99.9)


@pytest.mark.parametrize("text", ["", "50,", "a", "101", "-1", "nan", "inf"])
def test_what_are_no_percentiles(text):
    with pytest.raises(UsageError, match="numbers of 0 to 100"):
        parse_percentiles(text)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_rate_is_more_than_nothing(value):
    assert check_positive("--request-rate", math.inf) == math.inf
    with pytest.raises(UsageError, match="--request-rate"):
        check_positive("--request-rate", value)
