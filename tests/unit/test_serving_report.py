"""`llmrun compare` from its options to what it prints, with an engine that is none and a server on loopback."""

import json
import math
from pathlib import Path

import pytest
import streaming_server as server
from fake_engine import FakeEngine, LetterTokenizer, starts
from golden_files import held
from streaming_server import serving

from llmrun.bench.serving.endpoint import Api
from llmrun.bench.serving.load import Drive, Load
from llmrun.bench.serving.measure import Experiment, Measured
from llmrun.bench.serving.metrics import summarise
from llmrun.bench.serving.outcome import Answer, Failure
from llmrun.bench.serving.report import ratios, report, report_json, report_text
from llmrun.bench.serving.target import parse_targets
from llmrun.bench.serving.workload import random_requests
from llmrun.cli.compare import CompareSettings, run_compare
from llmrun.cli.run import RunSettings
from llmrun.errors import DeviceError, Interrupted

GOLDEN = Path(__file__).parents[1] / "golden"


def experiment(count=2, **changes):
    values = {
        "requests": random_requests(count, 4, 3, seed=1), "warmups": (), "load": Load(seed=1), "api": Api.CHAT,
        "ignore_eos": False, "objectives": {}, "percentiles": (50.0, 90.0, 99.9),
    }  # fmt: skip
    return Experiment(**values | changes)


def measured(label, *outcomes, duration_s=2.0, objectives=None, notes=()):
    metrics = summarise(Drive(outcomes, duration_s, len(outcomes)), objectives or {}, (50.0, 90.0, 99.9))
    return Measured(parse_targets([label])[0], "tiny-llama", metrics, False, notes)


FAST = (Answer(0.0, (0.5, 0.6, 0.7), 0.75, 7, 3, "usage"), Answer(0.0, (0.5, 0.7, 0.8), 1.25, 7, 4, "usage"))
SLOW = (Answer(0.0, (1.0, 1.5, 2.0), 2.0, 7, 3, "chunks"), Failure(0.0, 0.1, "HTTP 500"))


def test_the_table():
    objectives = {"ttft": 500.0, "tpot": 300.0}
    asked = experiment(objectives=objectives, load=Load(2.0, 0.5, 8, seed=1), warmups=random_requests(1, 4, 3, 0))
    both = [
        measured("vllm=http://a:1", *FAST, objectives=objectives),
        measured("llmrun:tiny", *SLOW, duration_s=4.0, objectives=objectives, notes=("it was slow",)),
    ]
    held(report_text(asked, both) + "\n", GOLDEN / "compare_two.txt")


def test_json_has_the_names_of_vllm():
    (target,) = report(experiment(), [measured("http://me:secret@a:1", *FAST)])["targets"]
    latencies = {f"{part}_{name}_ms" for name in ("ttft", "tpot", "itl", "e2el") for part in
                 ("mean", "median", "std", "p50", "p90", "p99.9")}  # fmt: skip
    rates = {"request_throughput", "request_goodput", "output_throughput", "total_token_throughput", "duration"}
    counts = {
        "completed",
        "failed",
        "total_input_tokens",
        "total_cached_tokens",
        "total_output_tokens",
        "max_concurrent_requests",
    }
    own = {"label", "url", "model_id", "ratio_to_first", "counted_by", "errors", "interrupted", "notes"}
    assert target.keys() == latencies | rates | counts | own
    assert (target["mean_ttft_ms"], target["p50_ttft_ms"]) == (500.0, 500.0)
    assert target["url"] == "http://a:1/v1/"


def test_json_is_strict_and_has_the_workload():
    text = report_json(experiment(load=Load(math.inf, math.inf)), [measured("llmrun", *SLOW[1:])])
    value = json.loads(text, parse_constant=pytest.fail)
    assert (value["schema_version"], value["request_rate"], value["burstiness"]) == (1, "inf", "inf")
    assert (value["num_prompts"], value["output_len"], value["mean_input_words"]) == (2, 3, 4)
    assert value["targets"][0]["errors"] == [{"reason": "HTTP 500", "count": 1}]
    assert value["targets"][0]["mean_ttft_ms"] is None


def test_ratios_are_to_the_first_where_both_have_a_figure():
    first = {"duration": 2.0, "completed": 2, "mean_ttft_ms": 0.0, "mean_itl_ms": None, "mean_e2el_ms": 4.0}
    now = {"duration": 3.0, "completed": 4, "mean_ttft_ms": 1.0, "mean_itl_ms": 1.0, "mean_e2el_ms": None}
    assert ratios(now, first) == {"duration": 1.5}


class Tokenizer(LetterTokenizer):
    def encode_text(self, text):
        return [ord(c) for c in text]


def compare(*targets, engine=None, seen=None, start=None, **changes):
    settings = CompareSettings(
        parse_targets(targets), changes.pop("asked", experiment()), RunSettings(), json=True, **changes
    )
    run_compare(settings, start or starts(engine or FakeEngine(["abc"] * 9, Tokenizer()), seen))


def test_a_server_and_llmrun_get_the_same_prompts(capsys):
    engine, seen = FakeEngine(["abc"] * 9, Tokenizer()), []
    with serving() as running:
        compare(running.url, "llmrun:big", engine=engine, seen=seen)
    first, second = json.loads(capsys.readouterr().out)["targets"]
    assert sorted(f"user:{body['messages'][0]['content']};" for body in running.bodies) == sorted(engine.prompts)
    assert (first["model_id"], second["model_id"]) == (server.MODEL, "fake:1b")
    assert (first["completed"], second["completed"]) == (2, 2)
    assert second["ratio_to_first"]["duration"] == second["duration"] / first["duration"]
    assert [settings.model for settings in seen] == ["big"]
    assert any("queue" in note for note in second["notes"])
    assert engine.closed == 1


def test_warm_ups_are_sent_and_not_counted(capsys):
    asked = experiment(warmups=random_requests(2, 4, 3, seed=9))
    with serving(server.fails, server.ok) as running:
        compare(running.url, asked=asked)
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert [body["messages"][0]["content"] for body in running.bodies[:2]] == [one.prompt for one in asked.warmups]
    assert (len(running.bodies), target["completed"], target["failed"]) == (4, 2, 0)
    assert "1 of 2 warm-up requests failed: HTTP 500" in target["notes"][0]


def test_what_a_reader_has_to_know_is_noted(capsys):
    asked = experiment(requests=random_requests(2, 4, 50, 0))
    with serving(server.without_usage) as running:
        compare(running.url, asked=asked, model="named")
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert (target["counted_by"], target["total_input_tokens"], target["model_id"]) == (["chunks"], None, "named")
    chunks, prompts, early = target["notes"]
    assert "each chunk with text counts as one" in chunks
    assert "tokens of the prompts" in prompts
    assert "3.0 tokens on average of 50" in early


@pytest.mark.parametrize(("cached", "noted"), [(4, True), (3, False)])
def test_a_prompt_cache_is_noted_where_it_had_most_of_the_prompts(capsys, cached, noted):
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": cached}}
    end = [server.END[0], server.event({"choices": [], "usage": usage}), server.DONE]
    with serving(lambda exchange: exchange.stream([*server.CHAT, *end])) as running:
        compare(running.url)
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert target["total_cached_tokens"] == 2 * cached
    assert ["--seed" in note for note in target["notes"]] == [True] * noted


def test_all_failed_is_an_error_after_the_report(capsys):
    with serving(server.too_many) as running, pytest.raises(DeviceError) as error:
        compare("llmrun", f"busy={running.url}")
    mine, busy = json.loads(capsys.readouterr().out)["targets"]
    assert (mine["completed"], busy["completed"], busy["failed"]) == (2, 0, 2)
    assert (error.value.reference, error.value.exit_code) == ("all-requests-failed", 5)
    (row,) = error.value.rows
    assert (row.label, row.amount, row.detail[:8]) == ("busy", "2", "HTTP 429")


def test_a_server_that_is_not_there_costs_no_figures_of_the_others(capsys):
    with serving() as gone:
        pass
    with serving() as running, pytest.raises(DeviceError) as error:
        compare(running.url, gone.url)
    assert error.value.reference == "endpoint-unreachable"
    assert len(json.loads(capsys.readouterr().out)["targets"]) == 1


def test_interrupted_between_two_targets(capsys):
    def start(settings, notify, starting):
        raise KeyboardInterrupt

    with serving() as running, pytest.raises(KeyboardInterrupt):
        compare(running.url, "llmrun", start=start)
    assert len(json.loads(capsys.readouterr().out)["targets"]) == 1


def test_nothing_is_printed_where_nothing_was_measured(capsys):
    def start(settings, notify, starting):
        raise Interrupted

    with pytest.raises(Interrupted):
        compare("llmrun", start=start)
    assert capsys.readouterr().out == ""
