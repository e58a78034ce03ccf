"""Means over rows, by the pool's task shares, and over tasks; and the words that two texts share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aliquot.evaluation.held_out.measures import exact_match, task_shares, token_f1, weighted_mean, weights
from aliquot.evaluation.weightings import POOL, ROWS, TASKS, WEIGHTINGS

LABELS = ["a", "a", "a", "b", "c", "c"]
VALUES = np.array([1.0, 0.0, 0.5, 0.25, 1.0, 0.0])
SHARES = {"a": 0.1, "b": 0.6, "d": 0.3}


def test_each_weighting_is_the_mean_that_its_name_says():
    by_task = {"a": 0.5, "b": 0.25, "c": 0.5}
    means = {by: weighted_mean(VALUES, weights(LABELS, 6, by, SHARES))[0] for by in WEIGHTINGS}
    assert means[ROWS] == pytest.approx(VALUES.mean())
    assert means[TASKS] == pytest.approx(np.mean(list(by_task.values())))
    # c is not in the pool, and d not among the rows: what is left has the shares 1/7 and 6/7.
    assert means[POOL] == pytest.approx((0.1 * by_task["a"] + 0.6 * by_task["b"]) / 0.7)


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=40))
def test_weights_have_mean_one_and_the_pools_own_shares_change_nothing(labels):
    for weighting in WEIGHTINGS:
        assert weights(labels, len(labels), weighting, task_shares(labels)).mean() == pytest.approx(1)
    np.testing.assert_allclose(weights(labels, len(labels), POOL, task_shares(labels)), 1)


def test_without_labels_there_is_only_the_mean_over_rows():
    assert weights(None, 3, TASKS, None) is None
    assert weights(LABELS, 6, POOL, None) is None
    assert weights(LABELS, 6, POOL, {"z": 1.0}) is None
    assert weights(None, 3, ROWS, None).tolist() == [1, 1, 1]


def test_the_error_of_equal_weights_is_the_usual_one_and_unequal_weights_have_a_larger_one():
    error = VALUES.std(ddof=1) / np.sqrt(6)
    assert weighted_mean(VALUES, np.ones(6))[1] == pytest.approx(error)
    assert weighted_mean(np.tile([0.0, 1.0], 50), np.tile([0.2, 0.2, 1.8, 1.8], 25))[1] > 0.0503


def test_the_error_of_a_weighted_mean_is_that_of_repeated_draws():
    rng = np.random.default_rng(0)
    weight = weights(LABELS * 20, 120, POOL, SHARES)
    chances = np.array([{"a": 0.3, "b": 0.5, "c": 0.9}[label] for label in LABELS * 20])
    found = [weighted_mean((rng.random(120) < chances).astype(float), weight) for _ in range(2000)]
    means, errors = np.array(found).T
    assert errors.mean() == pytest.approx(means.std(), rel=0.1)


@pytest.mark.parametrize(
    ("response", "right", "f1"),
    [
        ("The cat.", "a cat", 1.0),
        ("big red cat", "red dog", 2 * 1 / 5),
        ("dog dog", "dog", 2 / 3),
        ("", "", 1.0),
        ("", "dog", 0.0),
        ("the", "a", 1.0),
        ("It's 12.", "12", 2 / 3),
    ],
)
def test_token_f1_is_that_of_squad(response, right, f1):
    assert token_f1(response, right) == pytest.approx(f1)


def test_an_exact_match_overlooks_white_space_alone():
    assert exact_match(" a  dog\n", "a dog") == 1
    assert exact_match("A dog", "a dog") == exact_match("a dog.", "a dog") == 0
