"""Groups of prompts: by task label or by cluster, and what is known of each group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from aliquot.selection.clustering import k_means
from aliquot.selection.uncertainty import ResponseUncertainty
from aliquot.selection.vectors import Features
from aliquot.types import Pool, Scores

_PASSES = 25  # of k-means: with few clusters they take seconds


def by_task(pool: Pool) -> Int64[np.ndarray, " n"]:
    """Number the prompts by their task label, 0..c-1 in the order of the labels."""
    assert pool.tasks is not None
    return np.unique(np.array(pool.tasks), return_inverse=True)[1].astype(np.int64)


def by_cluster(
    features: Features, num_clusters: int, seed: int, directory: Path | None = None
) -> Int64[np.ndarray, " n"]:
    """Number the prompts by their k-means cluster, 0..c-1; see `aliquot.selection.clustering`."""
    return k_means(features, min(num_clusters, len(features)), _PASSES, seed, directory).labels


def mean_of_groups(values: Float64[np.ndarray, " n"], group: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " g"]:
    """Return the mean over each group."""
    return np.bincount(group, weights=values) / np.bincount(group)


def mean_confidence(scores: Scores, group: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " g"]:
    """Return the mean over each group of the geometric mean probability of a prompt's response tokens."""
    confidence = np.exp(-ResponseUncertainty("confidence").score(scores))
    return mean_of_groups(confidence, group)


def lottery(
    group: Int64[np.ndarray, " n"], prompts: Sequence[str], rng: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """Number the rows in a random order, in which the lower row comes first among equal prompts of a group."""
    drawn = rng.permutation(len(group))
    first: dict[tuple[int, str], int] = {}
    kinds = [first.setdefault(one, row) for row, one in enumerate(zip(group.tolist(), prompts, strict=True))]
    kind = np.array(kinds)
    lottery = np.empty_like(drawn)
    lottery[np.argsort(kind, kind="stable")] = drawn[np.lexsort((drawn, kind))]
    return lottery
