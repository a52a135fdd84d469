import pytest
from made_rows import made_row
from scipy import stats

from llmrun.bench.regression import compare_rows, comparison_table
from llmrun.errors import UsageError
from llmrun.units import GIB

STEADY = (100.0, 101.0, 99.0, 100.5, 99.5)


def times(factor, rates=STEADY):
    return [rate * factor for rate in rates]


def one(now, before, tolerance=0.05, **changes):
    (found,) = compare_rows([made_row(now, **changes)], [made_row(before, **changes)], tolerance)
    return found


def test_ratio_is_of_the_mean_rates():
    found = one([90.0, 110.0], [50.0, 150.0, 100.0])
    assert (found.before_ts, found.now_ts, found.ratio) == pytest.approx((100, 100, 1))
    assert found.name == "llama 135M BF16, tg128, warm"


@pytest.mark.parametrize("now", [times(0.97), times(1.2), [80.0, 120.0], [60.0, 75.0, 90.0]])
def test_noise_is_the_confidence_interval_of_welch(now):
    row, before = made_row(now), made_row(STEADY)
    (found,) = compare_rows([row], [before], 0.05)
    welch = stats.ttest_ind(row.samples_ts, before.samples_ts, equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert found.noise == pytest.approx((interval.high - interval.low) / 2 / before.avg_ts)
    assert found.significant == (welch.pvalue < 0.05)


@pytest.mark.parametrize(
    ("now", "significant", "regressed", "verdict"),
    [
        (times(0.9), True, True, "REGRESSION"),
        (times(0.97), True, False, "slower, within the tolerance"),
        (times(1.1), True, False, "faster"),
        (times(1.001), False, False, "within the noise"),
        ([20.0, 170.0, 60.0], False, False, "within the noise"),  # 17 % slower, and no proof of it
    ],
)
def test_a_regression_is_beyond_tolerance_and_noise(now, significant, regressed, verdict):
    found = one(now, STEADY)
    assert (found.significant, found.regressed) == (significant, regressed)
    assert comparison_table([found]).splitlines()[1].endswith(f"  {verdict}")


@pytest.mark.parametrize(
    ("now", "before", "significant", "regressed", "verdict"),
    [
        ([90.0], STEADY, True, True, "REGRESSION, too few samples"),
        (STEADY, [120.0], True, True, "REGRESSION, too few samples"),
        ([97.0], [100.0], False, False, "within the tolerance, too few samples"),
        ([110.0], [100.0], True, False, "faster, too few samples"),
    ],
)
def test_one_sample_says_nothing_of_noise(now, before, significant, regressed, verdict):
    found = one(now, before)
    assert found.noise is None
    assert (found.significant, found.regressed) == (significant, regressed)
    table = comparison_table([found])
    assert table.splitlines()[1].endswith(verdict)
    assert "the tolerance alone decides" in table


def test_samples_without_any_spread():
    assert one([100.0, 100.0], [100.0, 100.0]).significant is False
    assert one([90.0, 90.0], [100.0, 100.0]).regressed is True


def test_just_within_the_tolerance_is_no_regression():
    assert one([95.0, 95.0], [100.0, 100.0], tolerance=0.06).regressed is False
    assert one([95.0, 95.0], [100.0, 100.0], tolerance=0.04).regressed is True


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "llama 1B BF16"},
        {"model_n_params": 7},
        {"n_gen": 64},
        {"n_depth": 512},
        {"cache_state": "cold"},
        {"sweep": "2GiB"},
        {"ram_budget_bytes": 2 * GIB},
        {"vram_budget_bytes": 6 * GIB},
    ],
)
def test_rows_of_another_kind_are_no_partners_and_are_named(changes):
    same, other = made_row(STEADY), made_row(STEADY, **changes)
    found = compare_rows([same, other], [same], 0.05)
    assert [each.ratio is None for each in found] == [False, True]
    assert "no partner" in comparison_table(found)
    found = compare_rows([same], [same, other], 0.05)
    assert (found[1].now_ts, found[1].before_ts, found[1].regressed) == (None, other.avg_ts, False)
    assert "not measured now" in comparison_table(found)


@pytest.mark.parametrize(
    "changes", [{"model_filename": "/other"}, {"seed": 3}, {"ram_budget_bytes": 4 * GIB - 200_000_000}]
)
def test_what_does_not_part_two_rows(changes):
    (found,) = compare_rows([made_row()], [made_row(**changes)], 0.05)
    assert found.ratio == 1


def test_the_nearest_memory_budget_is_the_partner():
    before = [made_row([rate], ram_budget_bytes=nbytes) for rate, nbytes in ((1.0, 410), (2.0, 401), (3.0, 390))]
    found = compare_rows([made_row([2.0], ram_budget_bytes=400)], before, 0.05)
    assert found[0].before_ts == pytest.approx(2)
    assert [each.before_ts for each in found[1:]] == pytest.approx([1, 3])


def test_of_a_case_that_was_measured_again_the_last_counts():
    (found,) = compare_rows([made_row([2.0])], [made_row([1.0]), made_row([2.0])], 0.05)
    assert found.ratio == 1


def test_a_comparison_without_any_pair_is_an_error():
    now = [made_row(n_gen=number) for number in range(1, 6)]
    with pytest.raises(UsageError) as caught:
        compare_rows(now, [made_row(cache_state="cold")], 0.05)
    assert caught.value.reference == "nothing-to-compare"
    assert "tg3, warm; and 2 more" in caught.value.message
    assert "tg128, cold" in caught.value.message


def test_the_table_stands_in_columns():
    now = [made_row(times(0.9)), made_row([7.0, 7.1], n_prompt=512, n_gen=0, model_type="a\nb")]
    before = [made_row(STEADY), made_row([3.0], n_gen=1)]
    assert comparison_table(compare_rows(now, before, 0.05)).splitlines() == [
        "                              before t/s  now t/s  ratio   noise",
        "llama 135M BF16, tg128, warm      100.00    90.00  0.900  ±0.011  REGRESSION",
        "a b, pp512, warm                       -     7.05      -       -  no partner: another case or memory budget",
        "llama 135M BF16, tg1, warm          3.00        -      -       -  not measured now",
        "noise: Welch's t test of the repetitions, 95% level",
    ]
