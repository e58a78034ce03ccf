"""What is said of a mean over seeds and questions, beside simulated truth and the same by scipy and statsmodels.

`pytest tests/report/test_statistics.py -k cover -rP` prints the coverage that docs/statistics.md tells of.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr, ndtri

from aliquot.config.schema import ROOT
from aliquot.report.analysis.statistics import Resampling, draws, estimate, holm, mean, p_value, summarize

sys.path.insert(0, str(ROOT / "benchmarks"))
import familywise

STUDIES, QUESTIONS = 2000, 100

#: Shares of seeds, questions and what is left in the variance of a mean.
REGIMES = {
    "seeds": (0.9, 0.05, 0.05),
    "questions": (0.05, 0.9, 0.05),
    "interaction": (0.05, 0.05, 0.9),
}
#: Accuracy, and by how much seeds and questions move it, in probits.
BINARY = {"right or wrong": (0.7, 0.05, 1.0)}


def gaussian(rng, rows, regime, hardness):
    """Matrices of mean 0 whose means have variance 1e-4, with these shares."""
    seeds, questions, left = (1e-4 * share for share in REGIMES[regime])
    values = np.sqrt(questions * QUESTIONS) * hardness
    values = values + np.sqrt(seeds * rows) * rng.standard_normal((STUDIES, rows, 1))
    return values + np.sqrt(left * rows * QUESTIONS) * rng.standard_normal((STUDIES, rows, QUESTIONS))


def binary(rng, rows, regime, hardness):
    """Matrices of 0 and 1 of the regime's accuracy, in the mean over all seeds and questions."""
    accuracy, seeds, questions = BINARY[regime]
    level = ndtri(accuracy) * np.sqrt(1 + seeds**2 + questions**2)
    chance = ndtr(level + seeds * rng.standard_normal((STUDIES, rows, 1)) + questions * hardness)
    return rng.random((STUDIES, rows, QUESTIONS)) < chance


def judged(ours, theirs=None):
    """The mean and its interval in each of many studies, resampled as the cells of one."""
    sides = [np.asarray(values, np.float32) for values in (ours, theirs) if values is not None]
    resampling = Resampling(np.concatenate([values.mean(axis=1) for values in sides]))
    for study in range(len(ours)):
        drawn = [
            resampling.draw(summarize(values[study], list(map(str, range(values.shape[1]))), owner, {cell: 1.0}))
            for owner, values, cell in zip("ab", sides, (study, len(ours) + study), strict=False)
        ]
        difference = mean(*(d.sample for d in drawn))
        yield difference, estimate(difference, draws(difference, *drawn))


def covered(found, truth):
    return 100 * np.mean([interval.low <= truth <= interval.high for _, interval in found])


@pytest.mark.slow
@pytest.mark.parametrize("rows", [3, 5])
@pytest.mark.parametrize("regime", [*REGIMES, *BINARY])
def test_intervals_of_a_mean_cover_the_truth(regime, rows):
    rng = np.random.default_rng(rows)
    hardness = rng.standard_normal((STUDIES, 1, QUESTIONS))
    make, truth = (binary, BINARY[regime][0]) if regime in BINARY else (gaussian, 0.0)
    coverage = covered(judged(make(rng, rows, regime, hardness)), truth)
    print(f"mean | {regime} | {rows} | {coverage:.1f}")
    assert 92.5 <= coverage <= 97.5  # 95 +- 2, and what 2,000 studies leave open


@pytest.mark.slow
@pytest.mark.parametrize("rows", [(3, 3), (5, 5), (3, 5)])
@pytest.mark.parametrize("regime", [*REGIMES, *BINARY])
def test_intervals_of_a_difference_cover_the_truth_and_its_test_keeps_its_level(regime, rows):
    rng = np.random.default_rng(sum(rows))
    ours = rng.standard_normal((STUDIES, 1, QUESTIONS))
    theirs = 0.8 * ours + 0.6 * rng.standard_normal(
        ours.shape
    )  # what is hard for one arm is hard for the other, mostly
    make = binary if regime in BINARY else gaussian
    sides = [make(rng, count, regime, hardness) for count, hardness in zip(rows, (ours, theirs), strict=True)]
    found = list(judged(*sides))
    coverage = covered(found, 0.0)
    wrong = 100 * np.mean([p_value(difference) <= 0.05 for difference, _ in found])
    print(f"difference | {regime} | {rows[0]}, {rows[1]} | {coverage:.1f} | {wrong:.1f}")
    assert 92.5 <= coverage <= 97.5  # 95 +- 2, and what 2,000 studies leave open
    assert wrong <= 6  # and far less where questions are most of the variance: the test is for families


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (5, 2)])
@pytest.mark.parametrize("spreads", [(0.1, 0.1), (0.1, 0.3)])
def test_of_families_of_sixty_null_differences_hardly_any_has_a_reliable_one(seeds, spreads):
    families = 400
    wrong = (familywise.count(families, seeds, spreads, questions=100) > 0).mean(axis=0)
    assert wrong[0] <= 0.06
    if 2 in seeds and spreads == (0.1, 0.3):
        assert wrong[1] > 0.06, "the degrees of freedom of the intervals would do, or this tests nothing"


def test_a_large_difference_is_found_in_a_family_of_sixty():
    assert familywise.count(10, (8, 8), (0.02, 0.02), questions=400, gain=0.15)[:, 0].mean() > 30


def sample(values, owner="a", cell=0):
    return summarize(values, list(map(str, range(len(values)))), owner, {cell: 1.0})


def test_one_run_has_no_interval_and_no_p():
    values = np.random.default_rng(0).random((1, 2000)).astype(np.float32)
    ((found, interval),) = judged(values[None])
    assert interval.value == pytest.approx(values.mean(), rel=1e-6)
    assert not interval.has_interval
    assert np.isnan(found.stderr)
    assert p_value(mean(sample(values), sample(values[:, ::-1], "b"))) is None
    assert p_value(mean(sample(values), sample(np.repeat(values, 3, axis=0), "b"))) is None


@pytest.mark.parametrize("rows", [(3, 3), (5, 5), (8, 7)])
def test_seeds_alone_are_compared_as_scipy_compares_two_samples(rows):
    rng = np.random.default_rng(2)
    means = [rng.normal(0.6, 0.02, count) for count in rows]
    ours, theirs = (
        sample(np.repeat(m[:, None], 50, axis=1).astype(np.float32), owner)
        for m, owner in zip(means, "ab", strict=True)
    )
    expected = stats.ttest_ind(*means, equal_var=False)
    assert expected.df <= 2 * (min(rows) - 1), "or the few seeds of one side would bound them"
    assert p_value(mean(ours, theirs)) == pytest.approx(expected.pvalue, rel=1e-3)


def test_of_unequal_numbers_of_seeds_the_smaller_bounds_the_degrees_of_freedom():
    rng = np.random.default_rng(2)
    five = rng.normal(0.6, 0.02, (5, 1)).astype(np.float32) + np.zeros(50, np.float32)
    two = np.float32([[0.6], [0.6001]]) + np.zeros(50, np.float32)  # agree by chance
    found = mean(sample(five), sample(two, "b"))
    welch = stats.ttest_ind(five[:, 0].astype(float), two[:, 0].astype(float), equal_var=False)
    assert welch.df > 3.9
    assert found.dof == 2


def test_variances_are_those_of_a_two_way_analysis_by_statsmodels():
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rng = np.random.default_rng(3)
    rows, columns = 4, 30
    values = rng.normal(0, 1, (rows, 1)) + rng.normal(0, 1, columns) + rng.normal(0, 1, (rows, columns))
    r, q = np.indices(values.shape).reshape(2, -1)
    table = anova_lm(ols("x ~ C(r) + C(q)", pandas.DataFrame({"x": values.ravel(), "r": r, "q": q})).fit())
    squares = table["mean_sq"]
    found = mean(sample(values.astype(np.float32)))
    assert found.seeds[0] * values.size == pytest.approx(squares["C(r)"], rel=1e-4)
    assert found.questions * values.size == pytest.approx(squares["C(q)"] - squares["Residual"], rel=1e-4)


def test_questions_do_not_stand_for_seeds():
    """Why one seed has no interval and no test: nine tenths of the variance come from seeds here."""
    rng = np.random.default_rng(5)
    values = gaussian(rng, 1, "seeds", rng.standard_normal((STUDIES, 1, QUESTIONS)))[:, 0]
    errors = stats.sem(values, axis=1)
    coverage = 100 * np.mean(abs(values.mean(axis=1)) <= 1.96 * errors)
    print(f"mean | questions for seeds | 1 | {coverage:.1f}")
    assert coverage < 50
    pairs = stats.ttest_1samp(values[0::2] - values[1::2], 0, axis=1).pvalue
    assert np.mean(pairs < 0.05) > 0.3, "two seeds of one strategy differ by their questions"


def test_a_true_difference_is_found():
    rng = np.random.default_rng(4)
    hardness = rng.standard_normal((200, 1, 1000))

    def runs(accuracy):
        level = ndtri(accuracy) * np.sqrt(2)
        return rng.random((200, 5, 1000)) < ndtr(level + 0.02 * rng.standard_normal((200, 5, 1)) + hardness)

    found = [p_value(difference) < 0.05 for difference, _ in judged(runs(0.73), runs(0.70))]
    assert np.mean(found) > 0.8  # 3 points, of a standard error of about 0.8


@pytest.mark.slow
def test_holm_is_that_of_statsmodels_with_ties():
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(3)
    for count in (1, 2, 7, 40):
        p = np.round(rng.random(count) ** 3, 2)  # ties, and zeros
        np.testing.assert_allclose(holm(p.tolist()), multipletests(p, method="holm")[1], rtol=1e-12)
    assert holm([]) == []


def test_the_same_answers_in_another_order_differ_by_nothing():
    values = np.random.default_rng(3).random((5, 7))
    ours, theirs = (summarize(v, "01234", "x", {0: 1.0}) for v in (values, values[::-1, ::-1]))
    assert ours.value != theirs.value, "in the last bit, or this tests nothing"
    assert mean(ours, theirs).value == 0
