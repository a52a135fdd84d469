"""How good the planners are: over many planning problems, the gap of each to a bound that no plan can beat.

    python benchmarks/planner_study.py --json study.json --plots docs

For each instance (`benchmarks/instances.py`) every planner's plan, its seconds, its gap to the lower bound and the time
it took, and on small instances the gap to the best of all plans. Then the loss where the true bandwidths are 1.5 times
off: of the plan for the figures as measured, and of the plan for the mean over their spread, both against the plan for
the true figures. Everything is computed from numbers: no model is run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from common import argument_parser, note, print_host, table, write_samples
from instances import SPREAD, Instance, make_instance

from llmrun.hardware.speeds import Speeds
from llmrun.planner.certificate.bound import Bound, lower_bound
from llmrun.planner.choices import Candidates
from llmrun.planner.make import DEFAULT_PLANNER_S, search
from llmrun.planner.problem import Effort, Problem
from llmrun.planner.scenarios import Bandwidth, slower

LOOSE, LONGER_S = 0.02, 10.0  # a larger gap than that is looked at for longer
TRUTH_S = 0.3  # for the plan of each of the true bandwidths
NAMES = ("greedy", "even", "random", "milp", "aco")
WRONG = {"disk": [Bandwidth.DISK], "memory": [Bandwidth.MEMORY], "link": [Bandwidth.LINK]}


@dataclass(frozen=True)
class Solved:
    """What one planner found for one instance."""

    seconds: float
    time_s: float
    evaluations: int


@dataclass(frozen=True)
class Result:
    """One instance of the study, solved by all planners."""

    seed: int
    kind: str
    n_layers: int
    n_gpus: int
    bound_s: float
    bound_time_s: float
    solved: dict[str, Solved]
    exhaustive_s: float | None
    longer_s: float | None
    loss_nominal: dict[str, float]
    loss_robust: dict[str, float]

    def gap(self, planner: str) -> float:
        """To the bound."""
        return self.solved[planner].seconds / self.bound_s - 1


def study(seed: int, small: bool) -> Result:
    """Solve one instance in every way."""
    instance = make_instance(seed, small=small)
    problem = instance.problem()
    began_s = time.perf_counter()
    bound = lower_bound(problem)
    bound_time_s = time.perf_counter() - began_s
    plans = {name: _solve(name, problem, bound) for name in NAMES}
    found_s = plans["aco"][1].seconds
    loose = not small and found_s > (1 + LOOSE) * bound.seconds
    losses = _losses(instance, plans["aco"][0])
    return Result(
        seed=seed,
        kind=instance.kind,
        n_layers=instance.spec.n_layers,
        n_gpus=instance.n_gpus,
        bound_s=bound.seconds,
        bound_time_s=bound_time_s,
        solved={name: solved for name, (_, solved) in plans.items()},
        exhaustive_s=_solve("exhaustive", problem, bound)[1].seconds if small else None,
        longer_s=min(found_s, _solve("aco", problem, bound, LONGER_S)[1].seconds) if loose else None,
        loss_nominal=losses[0],
        loss_robust=losses[1],
    )


def _solve(
    name: str, problem: Problem, bound: Bound, planner_s: float = DEFAULT_PLANNER_S
) -> tuple[Candidates, Solved]:
    effort = Effort.for_seconds(planner_s, problem, seed=0, bound_s=bound.seconds)
    began_s = time.perf_counter()
    outcome = search(name, problem, effort, bound)
    time_s = time.perf_counter() - began_s
    return outcome.best, Solved(float(problem.seconds(outcome.best)[0]), time_s, outcome.evaluations)


def _losses(instance: Instance, nominal: Candidates) -> tuple[dict[str, float], dict[str, float]]:
    """How much longer than the plan for the true speeds: the plan for the figures as measured, and the robust one."""
    robust_problem = instance.problem(robust=True)
    robust = _solve("aco", robust_problem, lower_bound(robust_problem))[0]
    losses: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for name, truth in _truths(instance.speeds, instance.n_gpus).items():
        true_problem = replace(instance, speeds=truth).problem()
        best = _solve("aco", true_problem, lower_bound(true_problem), TRUTH_S)[1].seconds
        found = [float(true_problem.seconds(plan)[0]) for plan in (nominal, robust)]
        best = min(best, *found)
        for loss, seconds in zip(losses, found, strict=True):
            loss[name] = seconds / best - 1
    return losses


def _truths(speeds: Speeds, n_gpus: int) -> dict[str, Speeds]:
    """The bandwidths that turn out to be faster or slower than measured."""
    wrong = {name: parts for name, parts in WRONG.items() if n_gpus or name != "link"}
    return {
        f"{name} {label}": slower(speeds, dict.fromkeys(parts, factor))
        for name, parts in wrong.items()
        for label, factor in (("slower", SPREAD), ("faster", 1 / SPREAD))
    }


def quantiles(values: Sequence[float]) -> list[str]:
    """Median, 95th percentile and worst, in percent."""
    return [f"{100 * value:.2f}" for value in (*np.quantile(values, [0.5, 0.95]), max(values))]


def gap_table(results: Sequence[Result]) -> str:
    """Each planner's gap to the bound and its time."""
    rows = []
    for name in NAMES:
        times_s = [result.solved[name].time_s for result in results]
        wins = sum(result.solved["aco"].seconds < result.solved[name].seconds * 0.999 for result in results)
        times = [f"{statistics.median(times_s):.2f}", f"{max(times_s):.2f}"]
        rows.append([name, *quantiles([r.gap(name) for r in results]), *times, str(wins)])
    headers = ["planner", "gap to the bound, median %", "p95 %", "worst %", "s, median", "s, longest"]
    return table([*headers, "instances where aco is > 0.1 % better"], rows)


def exhaustive_table(results: Sequence[Result]) -> str:
    """On small instances: the gap to the best of all plans, and how far that is from the bound."""
    solved = [(result, result.exhaustive_s) for result in results if result.exhaustive_s]
    rows = [[name, *quantiles([r.solved[name].seconds / best - 1 for r, best in solved])] for name in NAMES]
    rows.append(["the bound (best plan / bound - 1)", *quantiles([best / r.bound_s - 1 for r, best in solved])])
    return table([f"{len(solved)} small instances", "gap to the best plan, median %", "p95 %", "worst %"], rows)


def longer_table(results: Sequence[Result]) -> str:
    """Where the gap is large: how much of it a run of ten times the effort still closes."""
    loose = [(result, result.longer_s) for result in results if result.longer_s is not None]
    if not loose:
        return f"no gap of aco is above {100 * LOOSE:.0f} %"
    rows = [
        ["gap of aco", *quantiles([result.gap("aco") for result, _ in loose])],
        ["of ten times the effort", *quantiles([longer_s / result.bound_s - 1 for result, longer_s in loose])],
        ["what that found", *quantiles([r.solved["aco"].seconds / longer_s - 1 for r, longer_s in loose])],
    ]
    return table([f"{len(loose)} instances with a gap above {100 * LOOSE:.0f} %", "median %", "p95 %", "worst %"], rows)


def group_table(results: Sequence[Result]) -> str:
    """The gap of aco by what the instance is."""
    groups: dict[str, list[float]] = {}
    for result in results:
        for name in (f"{result.n_gpus} GPUs", result.kind):
            groups.setdefault(name, []).append(result.gap("aco"))
    rows = [[f"{name} ({len(gaps)})", *quantiles(gaps)] for name, gaps in sorted(groups.items())]
    return table(["aco, by kind of instance", "gap, median %", "p95 %", "worst %"], rows)


def loss_table(results: Sequence[Result]) -> str:
    """What wrong bandwidths cost each of the two plans."""
    rows = []
    for label, chosen in (("nominal", "loss_nominal"), ("robust", "loss_robust")):
        losses = [loss for result in results for loss in getattr(result, chosen).values()]
        worst = [max(getattr(result, chosen).values()) for result in results]
        mean = statistics.fmean(losses)
        rows.append([label, *quantiles(losses), f"{100 * mean:.3f}", f"{100 * statistics.median(worst):.3f}"])
    headers = ["plan for", "loss, median %", "p95 %", "worst %", "mean %", "median of each instance's worst %"]
    return table(headers, rows)


def gap_plot(results: Sequence[Result], file: Path) -> None:
    """For each planner the share of instances within a gap."""
    _cumulative(
        {name: [max(r.gap(name), 1e-6) * 100 for r in results] for name in NAMES},
        "gap to the lower bound, %",
        file,
    )


def loss_plot(results: Sequence[Result], file: Path) -> None:
    """For both plans the share of instances and wrong bandwidths within a loss."""
    losses = {"plan for the nominal figures": "loss_nominal", "robust plan": "loss_robust"}
    _cumulative(
        {
            label: [max(loss, 1e-6) * 100 for result in results for loss in getattr(result, chosen).values()]
            for label, chosen in losses.items()
        },
        f"loss where bandwidths are {SPREAD} x off, %",
        file,
    )


def _cumulative(series: dict[str, list[float]], label: str, file: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), dpi=120)
    for (name, values), style in zip(series.items(), ("-", "--", "-.", ":", "-"), strict=False):
        axes.step(sorted(values), np.arange(1, len(values) + 1) / len(values), style, label=name, where="post")
    axes.set(xscale="log", xlabel=label, ylabel="share of instances", ylim=(0, 1.01))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def _run(task: tuple[int, bool]) -> Result:
    return study(*task)


def main() -> int:
    """Solve all instances and print the tables."""
    parser = argument_parser(__doc__)
    parser.add_argument("--instances", type=int, default=220)
    parser.add_argument("--small", type=int, default=60, help="instances that are also solved by trying everything")
    parser.add_argument("--jobs", type=int, default=1, help="processes; times are those of one with the rest busy")
    parser.add_argument("--plots", type=Path, help="folder for the two plots")
    args = parser.parse_args()
    facts = print_host(Path())
    tasks = [(seed, False) for seed in range(args.instances)] + [(seed, True) for seed in range(args.small)]
    results = []
    with ProcessPoolExecutor(args.jobs) as pool:
        for result in pool.map(_run, tasks):
            results.append(result)
            note(
                f"{len(results)} of {len(tasks)}: {result.kind}, {result.n_layers} layers, {result.n_gpus} GPUs, "
                f"aco {100 * result.gap('aco'):.2f} %"
            )
    large = [result for result in results if result.exhaustive_s is None]
    for text in (
        gap_table(large),
        group_table(large),
        longer_table(large),
        exhaustive_table(results),
        loss_table(large),
    ):
        print(f"\n{text}")
    worst = sorted(large, key=lambda result: -result.gap("aco"))[:5]
    print(
        "\nworst:", *(f"seed {r.seed} {r.kind} {r.n_layers} layers {r.n_gpus} GPUs {r.gap('aco'):.4f}" for r in worst)
    )
    if args.plots:
        gap_plot(large, args.plots / "planner-gap.png")
        loss_plot(large, args.plots / "planner-loss.png")
    write_samples(args.json, {"host": facts, "results": [asdict(result) for result in results]})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
