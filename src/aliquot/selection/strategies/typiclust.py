"""Typical prompts: from each cluster the one nearest to its neighbors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from aliquot.selection.clustering import check_k_means, k_means
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.strategy import Greedy, OnFeatures, leave_out
from aliquot.selection.typicality import typicality
from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class TypiClust(OnFeatures, Greedy):
    """Make as many k-means clusters as the budget has prompts, and pick from each the most typical one.

    TypiClust (Hacohen, Dekel, Weinshall 2022, arXiv 2202.02794). A prompt is the more typical, the smaller its mean
    distance to its nearest neighbors in its cluster. The largest clusters come first. In the first turn, every cluster
    without a prompt chosen before gives its most typical one; clusters with one are skipped. If that is not enough
    (equal prompts make fewer clusters, or prompts chosen before share one), further turns follow. In turn t, counted
    from 1, a cluster that holds c prompts chosen before gives its (t - c)-th most typical other prompt, if it has one.
    Ties go to the lower row. A pick's gain is the size of its cluster in the first turn, and 0 later.

    The paper's code makes at most 500 clusters and leaves out those of up to 5 prompts; both do not apply here, where
    budgets are larger. Other budgets make other clusters, so a smaller selection is not a prefix of a larger one.

    Args:
        num_neighbors: neighbors that decide how typical a prompt is; a smaller cluster counts all of its prompts.
        passes: maximum number of k-means passes (see `aliquot.selection.clustering`).
        seed: of the start of k-means.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    nested: ClassVar[bool] = False

    features: str | None = field(default="weighted", kw_only=True)
    normalize: str = field(default="unit", kw_only=True)
    num_neighbors: int = 20
    passes: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_neighbors < 1:
            raise ValueError(f"{self.num_neighbors} neighbors make no prompt typical; use 1 or more, such as 20")
        check_k_means(self.passes, self.seed)

    def extend(self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace) -> Selection:
        assert scores is not None
        clusters = k_means(scores.features, k, self.passes, self.seed, workspace.directory)
        distance = typicality(scores.features, clusters.labels, self.num_neighbors)
        distance[start.indices] = -1.0  # these have the first turns of their clusters
        turn, sizes = _rank_within(clusters.labels, distance), clusters.sizes[clusters.labels]
        order = np.lexsort((np.arange(len(pool)), -sizes, turn))
        gains = np.where(turn[order] == 0, sizes[order], 0).astype(np.float64)
        return leave_out(start, Selection(order, gains), k)


def _rank_within(labels: Int64[np.ndarray, " n"], values: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return how many rows with the same label come before each row by their values, the lower row first in a tie."""
    order = np.lexsort((np.arange(len(labels)), values, labels))
    first = np.concatenate([[0], np.cumsum(np.bincount(labels))])[labels[order]]
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - first
    return rank
