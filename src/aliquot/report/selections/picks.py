"""The picks of each arm, at a budget that all of them have: read from the store, measured, stored as plain values.

One replicate per arm is measured. Anything that would take too long on a whole pool is measured on a sample of it,
drawn with a fixed seed: the distance of prompts to the nearest pick, the distances between picks, the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from aliquot.report.analysis.findings import REFERENCE
from aliquot.report.analysis.study import Arm
from aliquot.report.selections import measures


@dataclass(frozen=True)
class TaskShares:
    """The tasks that were picked: shares of each, the most frequent task of the pool first."""

    names: tuple[str, ...]
    pool: Float64[np.ndarray, " t"]
    picked: Float64[np.ndarray, "arms t"]


@dataclass(frozen=True)
class Lengths:
    """The lengths of the picked prompts, in tokens as the model read them.

    Args:
        edges: of the bins, all of one width; the last bin also holds all longer prompts.
        pool: share of the pool in each bin.
        picked: the same of each arm's picks.
        pool_mean: tokens.
        means: of each arm's picks.
    """

    edges: Float64[np.ndarray, " edges"]
    pool: Float64[np.ndarray, " bins"]
    picked: Float64[np.ndarray, "arms bins"]
    pool_mean: float
    means: Float64[np.ndarray, " arms"]


@dataclass(frozen=True)
class Nearness:
    """Distances between features, in units of the typical distance of two prompts of the pool.

    Args:
        coverage: of sampled prompts of the pool, the same ones for all arms, to the nearest pick.
        redundancy: of sampled picks to the nearest other pick.
        duplicates: share of the picks whose features equal those of another pick.
    """

    coverage: Float64[np.ndarray, "arms m"]
    redundancy: Sequence[Float64[np.ndarray, " m"]]
    duplicates: Float64[np.ndarray, " arms"]


@dataclass(frozen=True)
class Correlations:
    """Spearman's correlations over the pool between the scores that strategies sort prompts by, and with lengths."""

    names: tuple[str, ...]
    matrix: Float64[np.ndarray, "s s"]


@dataclass(frozen=True)
class FeatureMap:
    """Sampled prompts on the two principal axes of the features.

    Args:
        pool: a sample of the pool.
        picked: samples of each arm's picks.
        explained: share of the variance along each axis.
    """

    pool: Float32[np.ndarray, "m 2"]
    picked: Sequence[Float32[np.ndarray, "p 2"]]
    explained: tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """The picks of one arm in a few numbers; None if the pool has no tasks, or no run read features.

    Args:
        arm: its name; "pool" for the pool itself.
        num_tasks: number of tasks that it picked from.
        effective_tasks: how many equally frequent tasks would be as diverse.
        mean_length: prompt tokens.
        coverage: mean distance of the pool's prompts to the nearest pick, 1 = that of two typical prompts.
        redundancy: mean distance of picks to the nearest other pick, in the same unit.
        duplicates: share of the picks whose features equal those of another pick.
        overlap: with random, prompts in both divided by those in either; None without random.
    """

    arm: str
    num_tasks: int | None
    effective_tasks: float | None
    mean_length: float | None
    coverage: float | None
    redundancy: float | None
    duplicates: float | None
    overlap: float | None


@dataclass(frozen=True)
class Picks:
    """The picks of a study's arms. Arrays have one row per arm.

    Args:
        budget: number of prompts that each arm picked.
        num_prompts: number of prompts in the pool.
        arms: those whose picks could be read.
        replicates: the run of each that was read.
        left_out: names of the arms that have no picks at this budget.
        overlap: prompts in both selections divided by those in either.
        tasks: None if the pool has no task labels.
        lengths: None if no run kept scores; the same holds for the following.
        nearness: distances; also None if a single prompt was picked.
        correlations: of scores.
        map: also None if features have one dimension.
        similarity: arm -> mean similarity of two prompts under its kernel, for all arms of the study that have one.
    """

    budget: int
    num_prompts: int
    arms: tuple[Arm, ...]
    replicates: tuple[str, ...]
    left_out: tuple[str, ...]
    overlap: Float64[np.ndarray, "arms arms"]
    tasks: TaskShares | None
    lengths: Lengths | None
    nearness: Nearness | None
    correlations: Correlations | None
    map: FeatureMap | None
    similarity: Mapping[str, float]

    def summaries(self) -> list[Summary]:
        """Return the numbers of the pool, then those of each arm."""
        strategies = [arm.strategy for arm in self.arms]
        reference = strategies.index(REFERENCE) if REFERENCE in strategies else None
        return [self._of_pool(), *(self._of_arm(i, reference) for i in range(len(self.arms)))]

    def _of_pool(self) -> Summary:
        tasks = self.tasks
        return Summary(
            "pool",
            num_tasks=len(tasks.names) if tasks else None,
            effective_tasks=measures.effective_number(tasks.pool) if tasks else None,
            mean_length=self.lengths.pool_mean if self.lengths else None,
            coverage=None,
            redundancy=None,
            duplicates=None,
            overlap=None,
        )

    def _of_arm(self, i: int, reference: int | None) -> Summary:
        tasks, near = self.tasks, self.nearness
        return Summary(
            self.arms[i].name,
            num_tasks=int((tasks.picked[i] > 0).sum()) if tasks else None,
            effective_tasks=measures.effective_number(tasks.picked[i]) if tasks else None,
            mean_length=float(self.lengths.means[i]) if self.lengths else None,
            coverage=float(near.coverage[i].mean()) if near else None,
            redundancy=float(near.redundancy[i].mean()) if near else None,
            duplicates=float(near.duplicates[i]) if near else None,
            overlap=float(self.overlap[i, reference]) if reference is not None and reference != i else None,
        )
