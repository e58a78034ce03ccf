"""Number formats of reports: only the digits that their standard errors justify.

Accuracies and likelihoods are fractions. Readers see them in percent, and differences between them in points,
hundredths of the whole.
"""

from __future__ import annotations

from aliquot.report.analysis.findings import LEVEL, Saved
from aliquot.report.analysis.statistics import Estimate
from aliquot.runtime.numbers import decimals, signed


def percent(estimate: Estimate) -> str:
    """Write a score in percent, without the sign."""
    return f"{100 * estimate.value:.{_decimals(estimate)}f}"


def percent_interval(estimate: Estimate) -> str:
    """Write the 95 % interval of a score in percent; "" if it has none."""
    places = _decimals(estimate)
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{low:.{places}f} to {high:.{places}f}" if estimate.has_interval else ""


def points(estimate: Estimate) -> str:
    """Write a difference of scores in points, with its sign."""
    return signed(100 * estimate.value, _decimals(estimate))


def points_interval(estimate: Estimate) -> str:
    """Write the 95 % interval of a difference in points; "" if it has none."""
    places = _decimals(estimate)
    low, high = (signed(100 * end, places) for end in (estimate.low, estimate.high))
    return f"{low} to {high}" if estimate.has_interval else ""


def with_interval(value: str, interval: str) -> str:
    """Write a value, with its interval in brackets if it has one."""
    return f"{value} ({interval})" if interval else value


def p_value(p: float | None) -> str:
    """Write a p-value with its meaningful digits."""
    if p is None:
        return "not tested"
    if p < 0.001:
        return "p < 0.001"
    places = 3 if p < 0.1 else 2
    while round(p, places) >= LEVEL > p:  # 0.0499 must not appear as 0.050
        places += 1
    return f"p = {p:.{places}f}"


def times(ratio: float) -> str:
    """Write a ratio as a number of times."""
    return f"{ratio:.1f}" if ratio >= 0.95 else f"{ratio:.2g}"


def price(cost: float) -> str:
    """Write a price in any currency: to the hundredth, or to two digits if it is smaller."""
    return f"{cost:,.2f}" if cost >= 0.1 or cost == 0 else f"{cost:.2g}"


def seconds(spent: float) -> str:
    """Write whole seconds."""
    return f"{spent:,.0f}" if spent >= 1 or spent == 0 else "<1"


def saved_interval(saved: Saved) -> str:
    """Write the 95 % interval of annotations saved; "" if there is none, or if it contains all of random's budgets."""
    if saved.low is None:
        return f"at most {times(saved.high)}" if saved.high is not None else ""
    return f"{times(saved.low)} to {times(saved.high)}" if saved.high is not None else f"at least {times(saved.low)}"


def _decimals(estimate: Estimate) -> int:
    return decimals(100 * estimate.value, 100 * estimate.stderr)
