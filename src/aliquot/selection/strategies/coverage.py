"""Cover the pool by clusters: one prompt per cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aliquot.selection.clustering import check_k_means, k_means
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.strategy import Greedy, OnFeatures, leave_out
from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class Coverage(OnFeatures, Greedy):
    """Make as many k-means clusters as the budget has prompts, and pick from each the one nearest to its center.

    The largest clusters come first; a pick's gain is the number of prompts in its cluster. If rows are equal or
    clusters become empty, there are fewer than k; the prompts farthest from the centers of their clusters then follow,
    with gain 0. Other budgets make other clusters, so a smaller selection is not a prefix of a larger one.

    Args:
        passes: maximum number of k-means passes (see `aliquot.selection.clustering`).
        seed: of the start of k-means.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    nested: ClassVar[bool] = False
    version: ClassVar[int] = 2

    passes: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_k_means(self.passes, self.seed)

    def extend(self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace) -> Selection:
        assert scores is not None
        clusters = k_means(scores.features, k, self.passes, self.seed, workspace.directory)
        nearest_first = np.argsort(clusters.squared, kind="stable")
        _, first = np.unique(clusters.labels[nearest_first], return_index=True)
        centers = nearest_first[first]  # one per cluster
        centers = centers[np.lexsort((centers, -clusters.sizes))]
        farthest_first = np.argsort(-clusters.squared, kind="stable")
        rest = farthest_first[~np.isin(farthest_first, centers)]
        gains = np.zeros(len(pool))
        gains[: len(centers)] = clusters.sizes[clusters.labels[centers]]
        return leave_out(start, Selection(np.concatenate([centers, rest]).astype(np.int64), gains), k)
