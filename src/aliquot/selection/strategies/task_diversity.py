"""Spread the budget over tasks (Arabelly, Nemade, Nowak, Zhang 2025, arXiv 2507.21482)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from aliquot.selection.groups import by_cluster, by_task, lottery, mean_confidence
from aliquot.selection.strategy import OnView
from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class TaskDiversity(OnView):
    """Take prompts from all tasks in turn, or in proportion to the model's uncertainty about a task.

    The prompts of a task come in random order, and the j-th of them (j = 1, 2, ...) has its turn at time (j - 1/2) / q,
    where q is the quota of the task. Every prefix is therefore divided according to the quotas, up to rounding
    (Webster's method), and any quota that a task is too small to fill goes to the others. With equal quotas this is
    round-robin. Every gain is 0.

    The paper makes quotas inversely proportional to the base model's mean confidence on the task; its exact formula is
    not known to us. Here the confidence in a prompt is exp(mean_t log p1_t), the geometric mean of the token
    probabilities of the model's own response, and the confidence in a task is the mean over its prompts.

    Args:
        groups: the stand-in for tasks: "tasks" for the labels of the pool, or "clusters" for k-means clusters of the
            features, if the pool has no labels.
        quotas: "uniform", or "inverse_confidence".
        num_clusters: for groups="clusters".
        seed: of the order within tasks and of the clusters.
    """

    nested: ClassVar[bool] = True
    version: ClassVar[int] = 2

    groups: str = "tasks"
    quotas: str = "uniform"
    num_clusters: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.groups not in ("tasks", "clusters"):
            raise ValueError(f"groups '{self.groups}' are unknown; use tasks or clusters")
        if self.quotas not in ("uniform", "inverse_confidence"):
            raise ValueError(f"quotas '{self.quotas}' are unknown; use uniform or inverse_confidence")
        if self.num_clusters < 1:
            raise ValueError(
                f"num_clusters {self.num_clusters} is not a number of clusters; use 1 or more, such as 100"
            )
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; use 0 or more")

    @property
    def requires(self) -> frozenset[str]:
        groups = {"tasks" if self.groups == "tasks" else "features"}
        return frozenset(groups if self.quotas == "uniform" else groups | {"tokens"})

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        group = self._groups(pool, scores)
        quota = np.ones(group.max() + 1)
        if self.quotas == "inverse_confidence":
            assert scores is not None
            quota = 1 / mean_confidence(scores, group)
        rng = np.random.default_rng(self.seed)
        by_group = np.lexsort((lottery(group, pool.prompts, rng), group))
        begins = np.searchsorted(group[by_group], np.arange(len(quota)))
        turn = np.empty(len(pool))
        turn[by_group] = np.arange(len(pool)) - begins[group[by_group]]
        # The order among tasks with the same turn time is drawn anew each time.
        order = np.lexsort((rng.permutation(len(pool)), (turn + 0.5) / quota[group]))
        return Selection(order[:k].astype(np.int64), np.zeros(k))

    def _groups(self, pool: Pool, scores: Scores | None) -> Int64[np.ndarray, " n"]:
        if self.groups == "tasks":
            return by_task(pool)
        assert scores is not None
        return by_cluster(scores.features, self.num_clusters, self.seed)
