"""How fast each group of prompts is learned: power laws, fitted to the losses of what was bought round by round.

    log L_cr = alpha_c - beta_c log(n_cr + o) + noise,    L_c(n) = a_c (n + o)^(-b_c),  a_c = exp(alpha_c), b_c = beta_c

L_cr is the mean loss of the responses of group c bought in round r, under the model trained on the rounds before, and
n_cr is how many of the group that model was trained on. There are few observations of a group, so groups are shrunk
toward the pool: alpha_c and beta_c are independent draws from normal distributions, whose means and variances are
fitted to all groups together (empirical Bayes, Efron and Morris 1975). An irreducible loss is not fitted: over a few
rounds it cannot be told apart from a small b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from aliquot.types import Bought

#: How far the pool's mean exponent may be from the expected one: the standard deviation of its prior.
SLOPE_SPREAD = 0.25
_SMALLEST_LOSS = 1e-4  # nats; a loss of zero has no logarithm
_FLATTEST = 1e-2  # of exponents: a group that seems to lose by training is taken to have nearly stopped learning
_SPREADS = (1e-3, 3.0)  # the range of the standard deviations between groups


class _Moments(NamedTuple):
    """What the observations y = X (alpha, beta) + noise say of each group: X' S^-1 X, X' S^-1 y and y' S^-1 y."""

    xx: Float64[np.ndarray, "g 2 2"]
    xy: Float64[np.ndarray, "g 2"]
    yy: Float64[np.ndarray, " g"]


@dataclass(frozen=True)
class LearningCurves:
    """The loss of each group as a function of how many of its prompts are annotated, with what is uncertain of it.

    Given the pool's means m = (mean alpha, mean beta), (alpha_c, beta_c) is normal with mean A_c m + k_c and
    covariance D_c. A group of which nothing was bought has A_c = 1, k_c = 0.

    Args:
        shrink: A_c.
        shift: k_c.
        spread: D_c.
        pool_mean: the posterior mean of m.
        pool_covariance: its posterior covariance.
        trained: how many responses of each group were bought, all of which the next model is trained on.
        offset: o.
    """

    shrink: Float64[np.ndarray, "g 2 2"]
    shift: Float64[np.ndarray, "g 2"]
    spread: Float64[np.ndarray, "g 2 2"]
    pool_mean: Float64[np.ndarray, " 2"]
    pool_covariance: Float64[np.ndarray, "2 2"]
    trained: Int64[np.ndarray, " g"]
    offset: float

    @classmethod
    def fit(cls, bought: Bought, group: Int64[np.ndarray, " n"], offset: float, exponent: float) -> LearningCurves:
        """Fit the curves of all groups of a pool.

        Args:
            bought: the losses.
            group: of each prompt of the pool, 0..g-1.
            offset: o, above 0.
            exponent: what b is expected to be; after a single round, this is all that is known of it.

        Raises:
            ValueError: nothing was bought, or the offset is not above 0.
        """
        if not offset > 0:
            raise ValueError(
                f"strategy.offset={offset}: a loss before any annotation has no place on a curve with this offset; "
                "to learn from it give a number above 0, such as 1"
            )
        if not len(bought):
            raise ValueError("no response was bought in the rounds before, so there is nothing to learn from")
        from scipy.optimize import minimize  # importing it takes a second

        moments = _moments(bought, group, offset)

        def misfit(log_spreads: Float64[np.ndarray, " 2"]) -> float:
            return _fit(moments, log_spreads, exponent)[0]

        found = minimize(
            misfit,
            np.log([0.5, 0.2]),
            method="L-BFGS-B",
            bounds=[(np.log(_SPREADS[0]), np.log(_SPREADS[1]))] * 2,
        )
        parts = _fit(moments, found.x, exponent)[1:]
        return cls(*parts, np.bincount(group[bought.rows], minlength=len(moments.yy)), offset)

    @property
    def means(self) -> Float64[np.ndarray, "g 2"]:
        """The posterior mean of (alpha, beta) of each group."""
        return self.shrink @ self.pool_mean + self.shift

    @property
    def scale(self) -> Float64[np.ndarray, " g"]:
        """a: the loss at n + o = 1."""
        return np.exp(self.means[:, 0])

    @property
    def pool_scale(self) -> float:
        """a of a typical group."""
        return float(np.exp(self.pool_mean[0]))

    @property
    def exponents(self) -> Float64[np.ndarray, " g"]:
        """b, at least slightly above 0."""
        return np.maximum(self.means[:, 1], _FLATTEST)

    def draws(self, number: int, seed: int = 0) -> Float64[np.ndarray, "s g 2"]:
        """Draw (alpha, beta) of all groups from the posterior; groups share what is uncertain of the pool."""
        rng, groups = np.random.default_rng(seed), len(self.trained)
        pool = rng.standard_normal((number, 2)) @ _root(self.pool_covariance).T + self.pool_mean
        own = np.einsum("gij,sgj->sgi", _root(self.spread), rng.standard_normal((number, groups, 2)))
        drawn = np.einsum("gij,sj->sgi", self.shrink, pool) + self.shift + own
        drawn[..., 1] = np.maximum(drawn[..., 1], _FLATTEST)
        return drawn

    def losses(
        self, numbers: Float64[np.ndarray, " g"], drawn: Float64[np.ndarray, "s g 2"]
    ) -> Float64[np.ndarray, "s g"]:
        """Return the loss of each group after some number of annotations, on drawn curves, in nats per token."""
        return np.exp(drawn[..., 0] - drawn[..., 1] * np.log(numbers + self.offset))


def _moments(bought: Bought, group: Int64[np.ndarray, " n"], offset: float) -> _Moments:
    """Reduce the losses to what they say of each group.

    The losses of a group in a round are taken as log-normal, with one coefficient of variation for all: the logarithm
    of a mean of m of them has variance s2 = log(1 + cv^2 / m), and is s2 / 2 too low on average.
    """
    num_groups = int(group.max()) + 1
    xx, xy, yy = np.zeros((num_groups, 2, 2)), np.zeros((num_groups, 2)), np.zeros(num_groups)
    of_row, loss = group[bought.rows], np.maximum(bought.loss, _SMALLEST_LOSS)
    cells = np.unique(np.column_stack([of_row, bought.round]), axis=0, return_inverse=True)[1].ravel()
    count = np.bincount(cells)
    mean = np.bincount(cells, loss) / count
    relative = ((loss - mean[cells]) / mean[cells]) ** 2
    variation = relative.sum() / max(len(loss) - len(count), 1) if len(loss) > len(count) else 1.0
    noise = np.log1p(max(variation, 1e-6) / count)
    first = np.unique(cells, return_index=True)[1]
    of_cell, round_of_cell = of_row[first], bought.round[first]
    before = np.zeros((int(bought.round.max()) + 2, num_groups), dtype=np.int64)
    np.add.at(before, (bought.round + 1, of_row), 1)
    position = np.log(np.cumsum(before, axis=0)[round_of_cell, of_cell] + offset)
    x, y = np.column_stack([np.ones(len(count)), -position]), np.log(mean) + noise / 2
    np.add.at(xx, of_cell, x[:, :, None] * x[:, None, :] / noise[:, None, None])
    np.add.at(xy, of_cell, x * (y / noise)[:, None])
    np.add.at(yy, of_cell, y**2 / noise)
    return _Moments(xx, xy, yy)


def _fit(
    moments: _Moments, log_spreads: Float64[np.ndarray, " 2"], exponent: float
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return minus the log marginal likelihood of the spreads between groups, and the posterior that they lead to.

    The means of the pool are integrated out: that of alpha with a flat prior, that of beta with a normal one.
    """
    prior, expected = np.diag([0.0, SLOPE_SPREAD**-2]), np.array([0.0, exponent])
    between = np.diag(np.exp(2 * log_spreads))
    within = np.linalg.inv(np.eye(2) + moments.xx @ between)  # of each group: (1 + X' S^-1 X T)^-1
    shrink, spread = np.swapaxes(within, 1, 2), between @ within
    shift = (spread @ moments.xy[..., None])[..., 0]
    precision = prior + (within @ moments.xx).sum(axis=0)
    covariance = np.linalg.inv(precision)
    weighed = prior @ expected + (within @ moments.xy[..., None])[..., 0].sum(axis=0)
    explained = np.einsum("gi,gij,gj->", moments.xy, spread, moments.xy) + weighed @ covariance @ weighed
    volume = -np.log(np.linalg.det(within)).sum() + np.log(np.linalg.det(precision))
    loss = 0.5 * float(moments.yy.sum() - explained + volume)
    return loss, shrink, shift, spread, covariance @ weighed, covariance


def _root(covariance: Float64[np.ndarray, "*g 2 2"]) -> Float64[np.ndarray, "*g 2 2"]:
    """Return R with R R' = covariance, also for one that is singular up to rounding."""
    values, vectors = np.linalg.eigh((covariance + np.swapaxes(covariance, -1, -2)) / 2)
    return vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
