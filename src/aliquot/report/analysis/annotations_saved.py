"""Annotations saved at equal accuracy: where random's curve reaches the accuracy of an arm."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from jaxtyping import Float, Int

from aliquot.report.analysis.findings import Saved


def isotonic(
    values: Float[np.ndarray, "budgets draws"], weights: Int[np.ndarray, " budgets"]
) -> Float[np.ndarray, "budgets draws"]:
    """Return the non-decreasing least-squares fit of each column: max over a <= j of min over b >= j of mean(a..b).

    scikit-learn's IsotonicRegression computes the same fit; this does it for thousands of short columns at once. It
    proceeds row by row: numpy's own accumulation over the first axis is several times as slow.
    """
    fit = np.full(values.shape, -np.inf)
    weighted = list(values * weights[:, None])
    for a in range(len(values)):
        sums = list(zip(accumulate(weighted[a:]), accumulate(weights[a:].tolist()), strict=True))
        lowest = np.full(values.shape[1], np.inf)
        for b in reversed(range(a, len(values))):
            total, weight = sums[b - a]
            np.minimum(lowest, total / weight, out=lowest)
            np.maximum(fit[b], lowest, out=fit[b])
    return fit


def saved(
    value: Float[np.ndarray, " budgets"],
    draws: Float[np.ndarray, "budgets draws"],
    ratios: Float[np.ndarray, " budgets"],
    weights: Int[np.ndarray, " budgets"],
) -> Saved:
    """Find where random reaches the arm.

    Args:
        value: accuracy of random at its budgets, minus that of the arm.
        draws: the same for each bootstrap draw.
        ratios: budgets of random divided by that of the arm, ascending, at least two.
        weights: replicates of random.
    """
    (reached,) = _reached(value[:, None], ratios, weights)
    again = _reached(draws, ratios, weights)
    low, high = np.percentile(again, 2.5, method="lower"), np.percentile(again, 97.5, method="higher")
    inside = np.isfinite(reached)
    return Saved(
        ratio=float(reached) if inside else None,
        low=float(min(low, ratios[-1])) if low > -np.inf else None,
        high=float(max(high, ratios[0])) if high < np.inf else None,
        side=None if inside else "above" if reached > 0 else "below",
        range=(float(ratios[0]), float(ratios[-1])),
    )


def _reached(
    values: Float[np.ndarray, "budgets draws"],
    ratios: Float[np.ndarray, " budgets"],
    weights: Int[np.ndarray, " budgets"],
) -> Float[np.ndarray, " draws"]:
    """Return the ratio at which each fit reaches 0: -inf if it starts above, inf if it ends below.

    If random has the arm's budget, the fit is shifted to the difference there: random then needs more annotations
    exactly when it is worse there. On a flat stretch at 0, the smallest ratio is returned, or 1 if it is part of the
    stretch.
    """
    fit = isotonic(values, weights)
    own = np.flatnonzero(ratios == 1)
    if own.size:
        fit += (values - fit)[own]
    logs = np.log(ratios)
    reached = np.full(fit.shape[1], np.inf)
    for j in range(len(ratios) - 1):
        crosses = (fit[j] < 0) & (fit[j + 1] >= 0)
        low, high = fit[j, crosses], fit[j + 1, crosses]
        reached[crosses] = np.exp(logs[j] - low / (high - low) * (logs[j + 1] - logs[j]))
    reached[fit[0] > 0] = -np.inf
    reached[fit[0] == 0] = ratios[0]
    if own.size:
        reached[fit[own[0]] == 0] = 1.0
    return reached
