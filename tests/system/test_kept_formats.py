"""``--format`` and ``--quality`` from outside: weights rounded as they come in, nothing written."""

import json
from pathlib import Path

import pytest
from run_cli import llmrun, refused


def answered(checkpoint: Path, env: dict[str, object], *args: object) -> tuple[dict[str, object], str]:
    done = llmrun(
        "chat", checkpoint, "-p", "ab", "--max-tokens", 12, "--temperature", 0, "--context", 256, "--json", *args, **env
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def kept(answer: dict[str, object]) -> set[str]:
    return {one["kept"] for one in answer["plan"]["placements"]} - {None}


@pytest.fixture(scope="module")
def tight_mib(wide_checkpoint: Path, measured: dict[str, object]) -> int:
    """So much that all of it fits in q4."""
    args = ("--ram", "4GiB", "--context", 256, "--format", "q4", "--json")
    done = llmrun("plan", wide_checkpoint, "--dry-run", *args, **measured)
    plan = json.loads(done.stdout)["plan"]
    assert {one["home"] for one in plan["placements"] if one["unit"] != "embedding"} == {"cpu"}
    return sum(line["nbytes"] for line in plan["memory"][0]["lines"]) // 2**20 + 1


def test_a_budget_that_holds_the_model_only_so(
    wide_checkpoint: Path, measured: dict[str, object], tight_mib: int
) -> None:
    before = sorted(path.name for path in wide_checkpoint.iterdir())
    ram = ("--ram", f"{tight_mib}MiB")
    plain, _ = answered(wide_checkpoint, measured, *ram)
    small, _ = answered(wide_checkpoint, measured, *ram, "--format", "q4")
    assert kept(plain) == set()
    assert plain["read_bytes_per_token"]["disk"] > 2**20
    assert kept(small) == {"q4"}
    assert small["read_bytes_per_token"].get("disk", 0) < 2**16  # rows of the embedding
    assert set(small["text"]) <= {"a", "b"}  # nothing but these, whatever the bits
    for answer in (plain, small):
        assert answer["memory"]["cpu"]["peak_bytes"] <= tight_mib * 2**20
    assert sorted(path.name for path in wide_checkpoint.iterdir()) == before


def test_the_planner_may_choose(wide_checkpoint: Path, measured: dict[str, object], tight_mib: int) -> None:
    args = ("--ram", f"{tight_mib}MiB", "--quality", "balanced")
    chosen, _ = answered(wide_checkpoint, measured, *args)
    assert kept(chosen) <= {"q4", "q8"}
    assert "q4" in kept(chosen)
    assert chosen["plan"]["precision"] == {"quality": "balanced", "format": None}
    done = llmrun("plan", wide_checkpoint, "--context", 256, "--dry-run", *args, **measured)
    assert "q4 in RAM, quality balanced" in done.stdout


def test_what_is_packed_already_stays(tiny_checkpoint: Path, measured: dict[str, object], tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    assert llmrun("quantize", tiny_checkpoint, "--format", "q8", "-o", packed).returncode == 0
    answer, told = answered(packed, measured, "--format", "q4")
    assert kept(answer) == set()
    assert "--format q4 has no effect" in told


def test_a_benchmark_says_so(wide_checkpoint: Path, measured: dict[str, object]) -> None:
    args = ("-p", 8, "-n", 0, "-r", 1, "-o", "json", "--format", "q8", "--quality", "small", "--context", 4096)
    done = llmrun("bench", wide_checkpoint, *args, **measured)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["model_type"].endswith("BF16, q8 in RAM, quality small")


def test_a_plan_has_its_own(wide_checkpoint: Path, measured: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    done = llmrun("plan", wide_checkpoint, "--format", "q8", "--output", path, **measured)
    assert done.returncode == 0, done.stderr
    refusal = refused(llmrun("chat", wide_checkpoint, "-p", "a", "--plan", path, "--format", "q4"), 2, "bad-option")
    assert "--format does not go with --plan" in "\n".join(refusal)
    answer, _ = answered_by_plan(wide_checkpoint, path, {**measured, "LLMRUN_QUALITY": "small"})
    assert kept(answer) == {"q8"}
    assert answer["plan"]["precision"] == {"quality": "lossless", "format": "q8"}


def answered_by_plan(checkpoint: Path, path: Path, env: dict[str, object]) -> tuple[dict[str, object], str]:
    done = llmrun("chat", checkpoint, "-p", "ab", "--max-tokens", 2, "--json", "--plan", path, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_what_is_not_known_is_refused(tiny_checkpoint: Path) -> None:
    assert "q4, q8" in refused(llmrun("chat", tiny_checkpoint, "-p", "a", "--format", "q3"), 2, "bad-option")[-1]
    lines = refused(llmrun("plan", tiny_checkpoint, "--quality", "best"), 2, "bad-option")
    assert "lossless, high, balanced, small" in lines[-1]
    lines = refused(llmrun("plan", tiny_checkpoint, LLMRUN_QUALITY="best"), 2, "bad-option")
    assert any("LLMRUN_QUALITY" in line for line in lines)
