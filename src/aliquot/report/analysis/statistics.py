"""Means over seeds and questions, both random: their variances, intervals and tests.

Results of an arm are a matrix, replicates x questions: x_rq = mu + a_r + b_q + e_rq, with a random effect a of the
seed, a random effect b of the question, and the residual e. The mean would differ with other questions (other b) and
with other seeds (other a and e). The two variances are estimated separately: questions are many and seeds are few.
Two arms answer the same questions, so b of one is subtracted from b of the other; their seeds have nothing in common.
`docs/statistics.md` gives the reasons, and how often the intervals cover the truth.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32

NUM_DRAWS = 2000
_SEED = 2007
_ROUNDING = 1e-12  # smaller differences count as zero: means of the same answers differ in the last bit
_CHUNK = 100  # draws at once


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and 95 % interval, all fractions (0.01 is one point of accuracy).

    Unknown parts are NaN: the interval of a single seed, or one where nothing varies.
    """

    value: float
    stderr: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)


@dataclass(frozen=True)
class Sample:
    """The summary that the statistics need of a matrix, replicates x questions, that is a weighted sum of cells.

    Args:
        owner: the arm to which the seeds belong.
        weights: index of a cell -> its weight in the sum.
        value: the overall mean.
        rows: replicate -> mean over questions, minus `value`.
        columns: mean over replicates of each question, minus `value`.
        between: variance of the rows; NaN for a single one.
        left: variance of e; NaN for a single row.
    """

    owner: str
    weights: Mapping[int, float]
    value: float
    rows: Mapping[str, float]
    columns: Float32[np.ndarray, " questions"]
    between: float
    left: float


@dataclass(frozen=True)
class Mean:
    """The mean of a sample, or the difference of two, with the components of its variance.

    Args:
        value: the mean.
        questions: variance from the questions.
        seeds: variance from the seeds, of each sample; NaN for a sample of one seed, which gives no estimate.
        dof: degrees of freedom of the seeds, for Student's t.
    """

    value: float
    questions: float
    seeds: tuple[float, ...]
    dof: float

    @property
    def stderr(self) -> float:
        """The standard error; NaN if it is unknown, or if no answer differs from another."""
        variance = self.questions + sum(self.seeds)
        return math.sqrt(variance) if variance > _ROUNDING**2 else math.nan

    @property
    def dof_of_interval(self) -> float:
        """The degrees of freedom that make 95 % intervals cover: `dof` divided by the seeds' share of the variance.

        Satterthwaite (1946) would square the share, which is itself an estimate from few seeds: intervals would be too
        short. In the far tail, where many comparisons are corrected for, even this share is too much: a small estimate
        makes both the statistic large and the tail thin. Tests therefore use `dof`.
        """
        seeds = sum(self.seeds)
        return self.dof * (self.questions + seeds) / seeds if seeds > 0 else math.inf


def summarize(
    values: Float[np.ndarray, "replicates questions"],
    replicates: Sequence[str],
    owner: str,
    weights: Mapping[int, float],
) -> Sample:
    """Return a sample with the mean squares of a two-way layout."""
    count, num_questions = values.shape
    rows = values.mean(axis=1, dtype=np.float64)
    value = float(rows.mean())
    rows -= value
    columns = values.mean(axis=0, dtype=np.float64) - value
    between = left = math.nan
    if count > 1:
        between = float(np.square(rows).sum()) / (count - 1) if np.ptp(rows) > _ROUNDING else 0.0
        squares = np.einsum("rq,rq->", values, values, dtype=np.float64) - values.size * value**2
        squares -= num_questions * np.square(rows).sum() + count * np.square(columns).sum()
        left = max(0.0, float(squares)) / ((count - 1) * max(1, num_questions - 1))
    named = dict(zip(replicates, rows.tolist(), strict=True))
    return Sample(owner, weights, value, named, columns.astype(np.float32), between, left)


def mean(ours: Sample, theirs: Sample | None = None) -> Mean:
    """Return the mean of a sample, or that of `ours` minus that of `theirs`.

    The variance of the columns over the number of questions estimates var(b) / Q + var(e) / (R Q), and that of the rows
    over the number of rows var(a) / R + var(e) / (R Q): e is subtracted from the first. If the rows agree by chance,
    the first is used unchanged: the mean cannot be known that precisely.
    """
    samples = [ours] if theirs is None else [ours, theirs]
    columns = ours.columns if theirs is None else ours.columns - theirs.columns
    value = ours.value - (0.0 if theirs is None else theirs.value)
    if abs(value) < _ROUNDING:
        value = 0.0
    counts, num_questions = [len(sample.rows) for sample in samples], len(columns)
    total = float(np.square(columns, dtype=np.float64).sum()) / max(1, num_questions - 1) / num_questions
    seeds = tuple(sample.between / count for sample, count in zip(samples, counts, strict=True))
    left = sum(sample.left / count for sample, count in zip(samples, counts, strict=True)) / num_questions
    questions = total if math.isnan(left) else max(0.0, total - left)
    if sum(seeds) <= _ROUNDING**2:
        questions = total
    return Mean(value, questions, seeds, _degrees_of_freedom(counts, seeds))


def _degrees_of_freedom(counts: Sequence[int], seeds: Sequence[float]) -> float:
    """Return R - 1 for one sample; for two, Welch's value (1938), but at most that of two samples like the smaller.

    Otherwise a few seeds that agree by chance would count as many: with 2 against 5, Welch's reach 5.
    """
    total, fewest = sum(seeds), min(counts) - 1
    if len(counts) == 1 or not total > 0:
        return fewest
    welch = total**2 / sum(v**2 / (count - 1) for v, count in zip(seeds, counts, strict=True) if v > 0)
    return min(welch, 2 * fewest)


def p_value(mean: Mean) -> float | None:
    """Return the two-sided p-value for no difference, by Student's t; None if the standard error is unknown."""
    from scipy.special import stdtr

    return None if math.isnan(mean.stderr) else float(2 * stdtr(mean.dof, -abs(mean.value) / mean.stderr))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number (Holm 1979)."""
    p = np.array(p_values)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted.tolist()


@dataclass(frozen=True)
class Drawn:
    """A sample with bootstrap draws of its mean, minus that mean.

    Args:
        sample: the sample.
        questions: means over other questions.
        seeds: means over other seeds, of variance 1.
    """

    sample: Sample
    questions: Float32[np.ndarray, " draws"]
    seeds: Float32[np.ndarray, " draws"]


class Resampling:
    """Draws of means with other questions and other seeds, the same ones for all cells of a benchmark.

    Questions are drawn with replacement (Efron & Tibshirani 1993). A few seeds drawn with replacement give only a
    handful of different means, so their deviations get random normal weights instead (the multiplier bootstrap).

    Args:
        columns: for every cell, the mean of each question over replicates.
    """

    def __init__(self, columns: Float32[np.ndarray, "cells questions"]) -> None:
        self._questions = _resample(columns)

    def draw(self, sample: Sample) -> Drawn:
        """Draw the mean of a sample."""
        cells, weights = list(sample.weights), np.array(list(sample.weights.values()), np.float32)
        normals = [_normal(sample.owner, row) * value for row, value in sample.rows.items()]
        return Drawn(sample, weights @ self._questions[cells], _standard(np.sum(normals, axis=0)).astype(np.float32))


def draws(mean: Mean, ours: Drawn, theirs: Drawn | None = None) -> Float[np.ndarray, " draws"]:
    """Draw a mean: both parts scaled to their variances, and the whole so that 95 % of it matches Student's t."""
    from scipy.special import ndtri, stdtrit

    questions, seeds = ours.questions, math.sqrt(mean.seeds[0]) * ours.seeds
    if theirs is not None:
        questions, seeds = questions - theirs.questions, seeds - math.sqrt(mean.seeds[1]) * theirs.seeds
    deviations = math.sqrt(mean.questions) * _standard(questions) + math.sqrt(sum(mean.seeds)) * _standard(seeds)
    return mean.value + deviations * (stdtrit(mean.dof_of_interval, 0.975) / ndtri(0.975))


def _resample(columns: Float32[np.ndarray, "cells questions"]) -> Float32[np.ndarray, "cells draws"]:
    """Return means over questions drawn with replacement, minus those over all questions."""
    rng = np.random.default_rng(_SEED)
    count = columns.shape[1]
    centered = np.ascontiguousarray((columns - columns.mean(axis=1, keepdims=True)).T, np.float32)
    means: list[np.ndarray] = []
    for _ in range(0, NUM_DRAWS, _CHUNK):
        drawn = rng.integers(count, size=(_CHUNK, count)) + count * np.arange(_CHUNK)[:, None]
        times = np.bincount(drawn.ravel(), minlength=_CHUNK * count).reshape(_CHUNK, count)
        means.append(times.astype(np.float32) @ centered / count)
    return np.ascontiguousarray(np.concatenate(means).T)


def _standard(draws: Float[np.ndarray, " draws"]) -> Float[np.ndarray, " draws"]:
    """Give draws mean 0 and variance 1 exactly, which reduces the noise in results derived from them."""
    centered = draws - draws.mean(dtype=np.float64)
    deviation = math.sqrt(np.square(centered).mean())
    return centered / deviation if deviation > 0 else centered


@lru_cache(maxsize=256)  # 4 MB; consecutive cells of an arm share their seeds
def _normal(owner: str, replicate: str) -> Float[np.ndarray, " draws"]:
    """Return normal weights for a seed: the same ones regardless of what else is in the study."""
    return np.random.default_rng([_SEED, zlib.crc32(f"{owner} {replicate}".encode())]).standard_normal(NUM_DRAWS)


def estimate(mean: Mean, draws: Float[np.ndarray, " draws"], least: float = -1.0) -> Estimate:
    """Return the mean with the 95 % interval of its draws, which ends at `least` and 1; without one if it has none."""
    if math.isnan(mean.stderr):
        return Estimate(mean.value)
    low, high = np.clip(np.percentile(draws, [2.5, 97.5]), least, 1.0).tolist()
    return Estimate(mean.value, mean.stderr, low, high)
