"""A model's own layers, once measured, tell what they take; a large matrix is the stand-in until then."""

from dataclasses import replace

import pytest
from hosts import HOST, SPEEDS, weights_folder
from tiny_spec import model

from llmrun.hardware import measure as measuring
from llmrun.hardware.asking import Found, ask
from llmrun.hardware.host_key import host_key
from llmrun.hardware.measure_own import own_layers, own_rounding
from llmrun.hardware.speeds import LayerSpeed, OwnLayers
from llmrun.hardware.speeds_cache import cached_speeds, speeds_for, store_speeds, with_disk, with_layers
from llmrun.kernels.multiply import kernels
from llmrun.planner.choices import all_choices, stages, to_placements
from llmrun.planner.plan import DEFAULT_SLOTS
from llmrun.planner.predict import predict
from llmrun.planner.scenarios import Bandwidth, slower
from llmrun.planner.simulation.cost import cost, layer_seconds
from llmrun.settings import Workload
from llmrun.units import MIB

SPEC = model([100 * MIB, 200 * MIB], kv_bytes_per_token=0)
OWN = LayerSpeed(SPEC.layer_shape, 100 * MIB, (1, 64, 512), (0.004, 0.016, 0.128))
MEASURED = replace(SPEEDS, layers=(OWN,), reading_slowdown=1.0)
WORK = Workload(prompt_tokens=512, new_tokens=100)
FORMATS = {"self_attn.q_proj.weight": "BF16", "mlp.up_proj.weight": "F16", "mlp.down_proj.weight": "F8_E4M3"}


@pytest.mark.parametrize(("tokens", "seconds"), [(1, 0.004), (8, 0.008), (64, 0.016), (512, 0.128), (1024, 0.256)])
def test_between_the_measured_points_a_power_law_holds(tokens, seconds):
    assert layer_seconds(OWN, tokens) == pytest.approx(seconds)


def test_layers_cost_what_they_were_measured_to_take():
    found = cost(SPEC, MEASURED, WORK, all_choices([]), [])
    assert found.decode.compute_s[:2, 0] == pytest.approx([0.004, 0.008])  # twice the bytes, twice the time
    assert found.prefill.compute_s[:2, 0] == pytest.approx([0.128, 0.256])


def test_layers_of_another_shape_are_not_taken_for_these():
    other = replace(SPEC, hidden_size=2 * SPEC.hidden_size)
    plain = cost(other, SPEEDS, WORK, all_choices([]), [])
    assert cost(
        other, replace(MEASURED, reading_slowdown=SPEEDS.reading_slowdown), WORK, all_choices([]), []
    ).decode.compute_s == pytest.approx(plain.decode.compute_s)


def test_slower_memory_slows_them_too():
    assert slower(MEASURED, {Bandwidth.MEMORY: 2.0}).layers[0].seconds == (0.008, 0.032, 0.256)


def test_a_model_is_measured_once_on_a_host_that_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LLMRUN_MEASURE_S", raising=False)
    asked = []
    monkeypatch.setattr(measuring, "measure_layers", lambda *what: asked.append(what) or (OWN,))
    folder = weights_folder(tmp_path / "model")
    host = with_disk(HOST, folder)
    assert store_speeds(host, replace(SPEEDS, host=host_key(host)))
    told = []
    for _ in range(2):
        assert speeds_for(host, folder, told.append, OwnLayers(OWN.shape, ())).layer(OWN.shape) == OWN
    assert len(asked) == 1
    assert told == ["measuring this model's layers once, at most 10 s"]
    assert cached_speeds(host).layer(OWN.shape) == OWN


def test_the_layers_of_a_checkpoint_are_built_and_timed(llama_folder):
    found = dict(own_layers(llama_folder, FORMATS, 1.0, 64 * MIB))
    seconds = (f"seconds.{tokens}" for tokens in (64, 1, 256, 128))
    every = ("nbytes", "first_s", *seconds, "token_past_s", "chunk_past_s")
    assert tuple(found) == every[: len(found)]
    assert len(found) >= 4  # a busy machine leaves the longer ones out
    assert all(figure > 0 for name, figure in found.items() if name != "first_s")
    assert found["first_s"] >= 0


def test_what_is_kept_in_another_format_is_measured_beside(monkeypatch, tmp_path):
    """All that is not known in one go, and said so once; how the weights are rounded is part of the name."""
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "cache"))
    asked = []
    monkeypatch.setattr(
        measuring, "measure_layers", lambda path, host, own, s: asked.append(own) or tuple(map(_known, own))
    )
    folder = weights_folder(tmp_path / "model")
    host = with_disk(HOST, folder)
    assert store_speeds(host, replace(SPEEDS, host=host_key(host)))
    plain, kept, copies = OwnLayers("a", ()), OwnLayers("a, Q8_0", (), rounded=True), OwnLayers("a, Q4_0", ())
    told = []
    for own in ((plain, kept), (plain, kept), (plain, copies)):
        known = speeds_for(host, folder, told.append, *own)
    assert asked == [[plain, kept], [copies]]
    assert told == ["measuring this model's layers once, at most 10 s"] * 2
    assert cached_speeds(host).layer("a, Q8_0").rounding_s == 0.5
    incomplete = with_layers(replace(known, complete=False), host, folder, lambda note: None, OwnLayers("b", ()))
    assert incomplete.layer("b")
    assert cached_speeds(host).layer("b") is None


def test_layers_in_two_ways_are_measured_by_one_process(llama_folder, monkeypatch):
    ways = tuple(OwnLayers(name, tuple(dict.fromkeys(FORMATS, name).items())) for name in ("BF16", "F16"))
    requests = []
    monkeypatch.setattr(measuring, "ask", lambda request: requests.append(request) or ask(request))
    found = measuring.measure_layers(llama_folder, HOST, ways, 20.0)
    assert [request.own for request in requests] == [ways]
    assert [layer.shape for layer in found] == ["BF16", "F16"]
    assert all(layer.nbytes and layer.seconds for layer in found)


def test_what_was_found_of_one_way_is_not_lost_with_the_other(monkeypatch):
    figures = {"own.0.nbytes": 9, "own.0.seconds.1": 0.1, "own.0.seconds.64": 0.2, "own.1.nbytes": 3}
    ways = (OwnLayers("a", ()), OwnLayers("b", ()))
    for in_time, others in ((True, [LayerSpeed("b", 3, (), ())]), (False, [])):
        monkeypatch.setattr(measuring, "ask", lambda request, told=in_time: Found(dict(figures), in_time=told))
        monkeypatch.setattr(measuring, "others_share", lambda: 0.0)
        first, *rest = measuring.measure_layers("", HOST, ways, 1.0)
        assert (first.shape, first.tokens, first.seconds) == ("a", (1, 64), (0.1, 0.2))
        assert rest == others


def _known(own):
    return replace(OWN, shape=own.shape, rounding_s=0.5)


@pytest.mark.skipif(kernels(1) is None, reason="no kernels")
def test_rounding_a_layer_takes_a_time(tmp_path):
    from tiny_checkpoint import write_checkpoint

    folder = write_checkpoint(tmp_path, hidden_size=32)
    assert own_rounding(folder, FORMATS | {"mlp.up_proj.weight": "Q8_0"}) > 0
    assert own_rounding(folder, FORMATS) is None


def test_layers_larger_than_the_memory_for_measuring_are_refused(llama_folder):
    with pytest.raises(ValueError, match="larger than the memory"):
        list(own_layers(llama_folder, FORMATS, 0.05, 1))


def test_the_past_costs_what_attending_to_it_was_measured_to_take():
    own = replace(OWN, token_past_s=0.004, chunk_past_s=0.4)
    assert own.past_s(1024, 1) == pytest.approx(0.001)
    assert own.past_s(2048, 256) == pytest.approx(0.1)
    assert OWN.past_s(1024, 1) is None
    spec = model([100 * MIB], kv_bytes_per_token=1024)
    known = replace(SPEEDS, layers=(replace(own, shape=spec.layer_shape),))
    work = Workload(context_tokens=4096, prompt_tokens=1000, new_tokens=48)
    found = cost(spec, known, work, all_choices([]), [])
    assert found.decode.compute_s[0, 0] == pytest.approx(0.004 + 0.001)


@pytest.fixture
def llama_folder(tmp_path):
    from tiny_checkpoint import write_checkpoint

    return write_checkpoint(tmp_path / "llama")


def test_the_first_token_of_a_process_takes_what_its_first_pass_was_measured_to_take_more():
    spec = model([100 * MIB], kv_bytes_per_token=1024)
    work = Workload(context_tokens=4096, prompt_tokens=1000, new_tokens=48)
    placements = to_placements(spec, all_choices([]), [0] * len(stages(spec)))
    first, later = (
        predict(spec, placements, DEFAULT_SLOTS, replace(SPEEDS, layers=(own,)), work)
        for own in (replace(OWN, shape=spec.layer_shape, first_s=0.3), replace(OWN, shape=spec.layer_shape))
    )
    assert first.ttft_s == pytest.approx(later.ttft_s + 0.3)
    assert (first.warm_ttft_s, first.tpot_s) == (later.warm_ttft_s, later.tpot_s)
