"""Cover as many prompts as possible by balls of one radius around the selected ones."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from aliquot.selection.clustering import k_means
from aliquot.selection.cost_aware import CostAwareGreedy
from aliquot.selection.distances import squared_distances
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.purse import Purse
from aliquot.selection.strategy import OnFeatures
from aliquot.selection.vectors import Features, rescaled
from aliquot.types import Pool, Scores, Selection

log = logging.getLogger(__name__)

_SAMPLE = 2000  # rows whose balls decide about the radius
_WIDTH = 1024  # rows that are compared with the sample at once
_TINY = 2.0**-40  # features; smaller ones are rescaled, because products are float32
_PASSES = 20  # of k-means, which ends when its centers rest


@dataclass(frozen=True)
class ProbCover(OnFeatures, CostAwareGreedy):
    """Greedily pick the prompt whose ball of radius delta covers the most prompts that no ball covers yet.

    ProbCover (Yehuda et al. 2022, NeurIPS). Within 1 - 1/e of the largest coverage by as many balls. A ball holds the
    prompts at a distance smaller than delta. The radius decides what is selected: with a small one, balls hold nothing
    but their centers, with a large one, all prompts are alike. By default it is the largest radius at which a share
    `purity` of the balls (around at most 2,000 prompts drawn at random) hold prompts of one k-means cluster only. When
    all prompts are covered, coverage begins anew for those that are not selected (*ours*; the paper stops earlier). A
    pick's gain is the number of prompts that its ball covers first.

    Args:
        delta: the radius; None for the one that `purity` gives.
        purity: in (0, 1]; 0.95 in the paper.
        num_clusters: of the clustering; in the paper, the number of classes.
        seed: of the start of k-means, and of the sample.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    nested: ClassVar[bool] = True

    features: str | None = field(default="weighted", kw_only=True)
    normalize: str = field(default="unit", kw_only=True)
    delta: float | None = None
    purity: float = 0.95
    num_clusters: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delta is not None and not (self.delta > 0 and math.isfinite(self.delta)):
            raise ValueError(
                f"delta {self.delta} is not a radius; use a positive number, or null for that of the purity"
            )
        if not 0 < self.purity <= 1:
            raise ValueError(
                f"purity {self.purity} is not a share of the balls; use a fraction in (0, 1], such as 0.95"
            )
        if self.num_clusters < 2:
            raise ValueError(f"{self.num_clusters} clusters leave every ball pure; use 2 or more, such as 100")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; use 0 or more")

    def extend(
        self,
        pool: Pool,
        scores: Scores | None,
        start: Selection,
        k: int,
        workspace: Workspace,
        purse: Purse | None = None,
    ) -> Selection:
        from aliquot.selection.greedy.balls import balls  # imports numba
        from aliquot.selection.greedy.set_cover import greedy_cover

        assert scores is not None
        x, power = rescaled(np.ascontiguousarray(scores.features, dtype=np.float32), _TINY)
        if self.delta is None:
            labels = k_means(x, self.num_clusters, _PASSES, self.seed, workspace.directory).labels
            squared_radius = pure_squared_radius(x, labels, self.purity, self.seed)
        else:
            squared_radius = math.ldexp(self.delta, power) ** 2
        sets = balls(x, squared_radius)
        covered = greedy_cover(sets, np.ones(len(x), dtype=np.bool_), start, k, purse)
        log.info(
            "balls of radius %.4g hold %.1f prompts on average; %.1f %% are covered, in turn %d",
            *(math.ldexp(math.sqrt(squared_radius), -power), len(sets.rows) / len(x)),
            *(100 * covered.share, covered.turns),
        )
        return covered.selection


def pure_squared_radius(x: Features, labels: Int64[np.ndarray, " n"], purity: float, seed: int) -> float:
    """Return the largest squared radius at which a share `purity` of the balls are pure; 0 if there is one cluster.

    A ball is pure up to the distance of its center to the nearest row of another cluster. The radius is therefore a
    quantile of these distances, over at most 2,000 centers.
    """
    if (labels == labels[0]).all():
        return 0.0
    sample = np.random.default_rng(seed).permutation(len(x))[:_SAMPLE]
    center = x.mean(axis=0, dtype=np.float64)
    left, least, other = x[sample] - center, np.full(len(sample), np.inf), np.zeros(len(sample), dtype=np.int64)
    for first in range(0, len(x), _WIDTH):
        right = x[first : first + _WIDTH] - center
        squared = np.einsum("nd,nd->n", right, right) - 2 * left @ right.T  # without that of the center
        squared[labels[sample][:, None] == labels[first : first + _WIDTH]] = np.inf
        closer = squared.min(axis=1) < least
        other[closer] = first + squared[closer].argmin(axis=1)
        least[closer] = squared[closer].min(axis=1)
    nearest = np.sort(squared_distances(x, sample, other))
    return float(nearest[len(sample) - math.ceil(purity * len(sample))])
