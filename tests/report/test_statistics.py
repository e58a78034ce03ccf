"""What is said of a mean over seeds and questions, beside simulated truth and the same by scipy and statsmodels.

`pytest tests/report/test_statistics.py -k cover -rP` prints the coverage that docs/statistics.md tells of.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr, ndtri

from aliquot.report.statistics import Resampling, draws, estimate, holm, mcnemar, mean, p_value, summarise

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
    if rows > 1:  # the seeds of a single row are not covered
        values = values + np.sqrt(seeds * rows) * rng.standard_normal((STUDIES, rows, 1))
    return values + np.sqrt(left * rows * QUESTIONS) * rng.standard_normal((STUDIES, rows, QUESTIONS))


def binary(rng, rows, regime, hardness):
    """Matrices of 0 and 1 of the regime's accuracy, in the mean over all seeds and questions."""
    accuracy, seeds, questions = BINARY[regime]
    seeds = seeds if rows > 1 else 0.0
    level = ndtri(accuracy) * np.sqrt(1 + seeds**2 + questions**2)
    chance = ndtr(level + seeds * rng.standard_normal((STUDIES, rows, 1)) + questions * hardness)
    return rng.random((STUDIES, rows, QUESTIONS)) < chance


def judged(ours, theirs=None):
    """The mean and its interval in each of many studies, resampled as the cells of one."""
    sides = [np.asarray(values, np.float32) for values in (ours, theirs) if values is not None]
    resampling = Resampling(np.concatenate([values.mean(axis=1) for values in sides]))
    for study in range(len(ours)):
        drawn = [
            resampling.draw(summarise(values[study], list(map(str, range(values.shape[1]))), owner, {cell: 1.0}))
            for owner, values, cell in zip("ab", sides, (study, len(ours) + study), strict=False)
        ]
        difference = mean(*(d.sample for d in drawn))
        yield difference, estimate(difference, draws(difference, *drawn))


def covered(found, truth):
    return 100 * np.mean([interval.low <= truth <= interval.high for _, interval in found])


@pytest.mark.parametrize("rows", [1, 3, 5])
@pytest.mark.parametrize("regime", [*REGIMES, *BINARY])
def test_intervals_of_a_mean_cover_the_truth(regime, rows):
    rng = np.random.default_rng(rows)
    hardness = rng.standard_normal((STUDIES, 1, QUESTIONS))
    make, truth = (binary, BINARY[regime][0]) if regime in BINARY else (gaussian, 0.0)
    coverage = covered(judged(make(rng, rows, regime, hardness)), truth)
    print(f"mean | {regime} | {rows} | {coverage:.1f}")
    assert 92.5 <= coverage <= 97.5  # 95 +- 2, and what 2,000 studies leave open


@pytest.mark.parametrize("rows", [(3, 3), (5, 5), (1, 3)])
@pytest.mark.parametrize("regime", [*REGIMES, *BINARY])
def test_intervals_of_a_difference_cover_the_truth_and_its_test_keeps_its_level(regime, rows):
    rng = np.random.default_rng(sum(rows))
    ours = rng.standard_normal((STUDIES, 1, QUESTIONS))
    theirs = 0.8 * ours + 0.6 * rng.standard_normal(
        ours.shape
    )  # what is hard for one arm is hard for the other, mostly
    make = binary if regime in BINARY else gaussian
    sides = [
        make(rng, max(count, 2), regime, hardness)[:, :count]
        for count, hardness in zip(rows, (ours, theirs), strict=True)
    ]
    found = list(judged(*sides))
    coverage = covered(found, 0.0)
    wrong = 100 * np.mean([p_value(difference) <= 0.05 for difference, _ in found])
    print(f"difference | {regime} | {rows[0]}, {rows[1]} | {coverage:.1f} | {wrong:.1f}")
    assert 92.5 <= coverage <= 97.5  # 95 +- 2, and what 2,000 studies leave open
    assert 2.5 <= wrong <= 6


def sample(values, owner="a", cell=0):
    return summarise(values, list(map(str, range(len(values)))), owner, {cell: 1.0})


def test_one_run_has_the_interval_of_a_mean_of_independent_questions():
    values = np.random.default_rng(0).random((1, 2000)).astype(np.float32)
    ((found, interval),) = judged(values[None])
    low, high = stats.norm.interval(0.95, values.mean(), stats.sem(values[0]))
    assert found.stderr == pytest.approx(stats.sem(values[0]), rel=1e-4)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.1 * (high - low) / 2)
    assert 2 * stats.norm.sf(found.value / found.stderr) == pytest.approx(p_value(found))


@pytest.mark.parametrize("rows", [(3, 3), (5, 2), (1, 4)])
def test_seeds_alone_are_compared_as_scipy_compares_two_samples(rows):
    rng = np.random.default_rng(2)
    means = [rng.normal(0.6, 0.02, count) for count in rows]
    ours, theirs = (
        sample(np.repeat(m[:, None], 50, axis=1).astype(np.float32), owner)
        for m, owner in zip(means, "ab", strict=True)
    )
    expected = stats.ttest_ind(*means, equal_var=1 in rows)  # a single seed takes the variance of the others: pooled
    assert p_value(mean(ours, theirs)) == pytest.approx(expected.pvalue, rel=1e-3)


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


def test_a_true_difference_is_found():
    rng = np.random.default_rng(4)
    hardness = rng.standard_normal((200, 1, 1000))

    def runs(accuracy):
        level = ndtri(accuracy) * np.sqrt(2)
        return rng.random((200, 5, 1000)) < ndtr(level + 0.02 * rng.standard_normal((200, 5, 1)) + hardness)

    found = [p_value(difference) < 0.05 for difference, _ in judged(runs(0.73), runs(0.70))]
    assert np.mean(found) > 0.8  # 3 points, of a standard error of about 0.8


def test_holm_and_mcnemar_are_those_of_statsmodels_with_ties_and_without_a_difference():
    from statsmodels.stats.contingency_tables import mcnemar as expected_mcnemar
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(3)
    for count in (1, 2, 7, 40):
        p = np.round(rng.random(count) ** 3, 2)  # ties, and zeros
        np.testing.assert_allclose(holm(p.tolist()), multipletests(p, method="holm")[1], rtol=1e-12)
    assert holm([]) == []
    for chance in (0.0, 0.1, 0.5, 0.9):
        ours = (rng.random(60) < 0.6).astype(np.float32)
        theirs = np.where(rng.random(60) < chance, 1 - ours, ours).astype(np.float32)
        table = [[np.sum((ours == i) & (theirs == j)) for j in (0, 1)] for i in (0, 1)]
        assert mcnemar(ours, theirs) == pytest.approx(expected_mcnemar(table, exact=True).pvalue, rel=1e-9)


def test_the_same_answers_in_another_order_differ_by_nothing():
    values = np.random.default_rng(3).random((5, 7))
    ours, theirs = (summarise(v, "01234", "x", {0: 1.0}) for v in (values, values[::-1, ::-1]))
    assert ours.value != theirs.value, "in the last bit, or this tests nothing"
    assert mean(ours, theirs).value == 0
