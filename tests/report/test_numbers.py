"""Numbers are written with the digits that mean something, wherever they stand."""

import numpy as np
import pytest

from aliquot.report.analysis.findings import Saved
from aliquot.report.analysis.numbers import (
    p_value,
    percent,
    percent_interval,
    points,
    points_interval,
    price,
    saved_interval,
    seconds,
    times,
    with_interval,
)
from aliquot.report.analysis.statistics import Estimate
from aliquot.runtime.numbers import decimals, with_error

MINUS = "\N{MINUS SIGN}"


def estimate(value, stderr):
    """An estimate whose interval is two standard errors wide on both sides, of percents."""
    return Estimate(value / 100, stderr / 100, (value - 2 * stderr) / 100, (value + 2 * stderr) / 100)


def score(value, stderr):
    return with_interval(percent(estimate(value, stderr)), percent_interval(estimate(value, stderr)))


def test_likelihoods_of_less_than_one_percent_keep_their_digits():
    assert score(0.34, 0.012) == "0.34 (0.32 to 0.36)"
    assert score(0.5612, 0.0042) == "0.561 (0.553 to 0.570)"
    assert score(45.44, 1.51) == "45.4 (42.4 to 48.5)"
    assert score(45.44, 14.0) == "45.4 (17.4 to 73.4)"
    assert with_error(0.0034, 0.00012) == "0.34 ± 0.01"
    assert with_error(0.4544, 0.0151) == "45.4 ± 1.5"


def test_a_difference_whose_interval_leaves_0_out_never_reads_as_0():
    d = estimate(0.037, 0.0075)
    assert (points(d), points_interval(d)) == ("+0.037", "+0.022 to +0.052")
    assert (points(estimate(-0.004, 0.5)), points_interval(estimate(-0.004, 0.5))) == ("0.0", f"{MINUS}1.0 to +1.0")
    assert points(estimate(-1.23, 0.5)) == f"{MINUS}1.2"


@pytest.mark.parametrize("stderr", [1e-7, 3e-5, 0.004, 0.02, 0.8, 5.0])
def test_the_last_decimal_is_the_first_digit_of_the_standard_error(stderr):
    for value in np.random.default_rng(0).uniform(0, 100, 50):
        places = decimals(value, stderr)
        assert places >= 1
        assert abs(round(value, places) - value) <= max(stderr, 0.05)
        assert places == 1 or 10.0**-places > stderr / 10.001


def test_what_is_not_known_is_left_out():
    assert score(0.0, np.nan) == "0.0"
    assert score(12.34, np.nan) == "12.3"
    assert score(0.0567, np.nan) == "0.057"
    assert with_error(0.0, 0.0) == "0.0"
    assert with_error(1.0, 0.0) == "100.0"
    assert p_value(None) == "not tested"


def test_p_values_and_ratios():
    assert [p_value(p) for p in (0.5, 0.0123, 1e-9)] == ["p = 0.50", "p = 0.012", "p < 0.001"]
    assert [p_value(p) for p in (0.0496, 0.04996, 0.05, 0.0999)] == [
        "p = 0.0496",
        "p = 0.04996",
        "p = 0.050",
        "p = 0.100",
    ]
    assert [times(ratio) for ratio in (1.84, 0.9999, 0.664, 0.051, 33.0)] == ["1.8", "1.0", "0.66", "0.051", "33.0"]
    assert [price(cost) for cost in (0, 0.0042, 0.23, 1234.5)] == ["0.00", "0.0042", "0.23", "1,234.50"]
    assert [seconds(spent) for spent in (0, 0.3, 1.6, 1234.4)] == ["0", "<1", "2", "1,234"]
    assert [saved_interval(Saved(1, *ends, None, (0.1, 9))) for ends in ((None, 2.0), (0.5, None), (None, None))] == [
        "at most 2.0",
        "at least 0.5",
        "",
    ]
