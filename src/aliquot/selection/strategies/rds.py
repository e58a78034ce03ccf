"""Take turns toward the prompts that the model will be asked (Ivison et al. 2025, arXiv 2503.01807)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int64

from aliquot.selection.clustering import number_rows
from aliquot.selection.strategy import OnView
from aliquot.selection.vectors import exact_unit_rows
from aliquot.types import Pool, Scores, Selection

_BLOCK = 1 << 22  # similarities held at once


@dataclass(frozen=True)
class RDS(OnView):
    """Let the target prompts take turns, each taking the most similar prompt that is left.

    Representation-based data selection; the RDS+ of Ivison et al. (2025, arXiv 2503.01807) reads position-weighted mean
    features, the default of this preset. Similarity is the cosine; a zero vector is similar to other zero vectors only.
    Turns go through the target in the order of its file. A pick's gain is its similarity to the target prompt that took
    it.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features", "target"})
    nested: ClassVar[bool] = True

    features: str | None = field(default="weighted", kw_only=True)

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        assert scores is not None and scores.target is not None
        nearest, similarity = most_similar(scores.features, scores.target.scores.features, k)
        taken, at = np.zeros(len(pool), dtype=bool), np.zeros(len(nearest), dtype=np.int64)
        indices, gains = np.empty(k, dtype=np.int64), np.empty(k)
        for turn in range(k):
            target = turn % len(nearest)
            while taken[nearest[target, at[target]]]:  # at most k - 1 of its k most similar are taken
                at[target] += 1
            indices[turn], gains[turn] = nearest[target, at[target]], similarity[target, at[target]]
            taken[indices[turn]] = True
        return Selection(indices, gains)


def most_similar(
    pool: Float32[np.ndarray, "n d"], target: Float32[np.ndarray, "q d"], k: int
) -> tuple[Int64[np.ndarray, "q k"], Float64[np.ndarray, "q k"]]:
    """Return the k rows of the pool most similar to each target row, and the cosines; ties go to the lower row."""
    number = number_rows(pool)
    distinct = np.unique(number, return_index=True)[1]  # equal rows must tie, whatever the place in a product
    unit = exact_unit_rows(np.concatenate([pool[distinct], target]))
    ours, theirs = unit[: len(distinct)], unit[len(distinct) :]
    nearest, similarity = np.empty((len(target), k), dtype=np.int64), np.empty((len(target), k))
    size = max(1, _BLOCK // len(pool))
    for first in range(0, len(target), size):
        block = slice(first, first + size)
        cosines = np.clip(theirs[block] @ ours.T, -1, 1)[:, number]
        nearest[block] = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        similarity[block] = np.take_along_axis(cosines, nearest[block], axis=1)
    return nearest, similarity
