"""Measures of a selection of prompts: tasks, lengths, coverage, redundancy, overlap; and of scores.

Distances are Euclidean, between features. The nearest row is found by float64 products, and its distance by
differences. Anything that would need the whole pool times the whole selection is measured on a sample, drawn with a
fixed seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64

from aliquot.selection.uncertainty import ResponseUncertainty
from aliquot.selection.vectors import central
from aliquot.types import Scores

Rows = Int64[np.ndarray, " k"]
Features = Float32[np.ndarray, "n d"]

_BLOCK = 256  # rows of a sample whose distances to the whole pool are held at once
#: The measures of `aliquot.selection.uncertainty` under the names of the strategies that pick by them.
UNCERTAINTIES = {
    "mean_entropy": ResponseUncertainty("entropy"),
    "max_entropy": ResponseUncertainty("entropy", "max"),
    "least_confidence": ResponseUncertainty("confidence"),
    "mean_margin": ResponseUncertainty("margin"),
    "min_margin": ResponseUncertainty("margin", "max"),
}


def shares(labels: Int64[np.ndarray, " k"], num_labels: int) -> Float64[np.ndarray, " t"]:
    """Return the share of each label."""
    return np.bincount(labels, minlength=num_labels) / max(len(labels), 1)


def effective_number(share: Float64[np.ndarray, " t"]) -> float:
    """Return exp of the entropy of shares: how many equally frequent labels are as diverse (Hill 1973, order 1)."""
    positive = share[share > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def jaccard(choices: Sequence[Rows]) -> Float64[np.ndarray, "a a"]:
    """Return, for each pair of selections, the prompts in both divided by those in either."""
    chosen = np.zeros((len(choices), 1 + max(int(choice.max()) for choice in choices)))
    for row, choice in zip(chosen, choices, strict=True):
        row[choice] = 1
    both, sizes = chosen @ chosen.T, chosen.sum(axis=1)
    return both / (sizes[:, None] + sizes - both)


def distances_to_nearest(features: Features, sample: Rows, choices: Sequence[Rows]) -> Float64[np.ndarray, "a m"]:
    """Return the distance of each sampled row to the nearest row of each selection."""
    x, norms = _centered(features)
    nearest = np.empty((len(choices), len(sample)))
    for start in range(0, len(sample), _BLOCK):
        rows = sample[start : start + _BLOCK]
        squared = x @ x[rows].T  # rows of the pool are rows here, so selections take whole rows
        squared *= -2.0
        squared += norms[:, None]
        for choice, found in zip(choices, nearest, strict=True):
            found[start : start + _BLOCK] = _distances(features, rows, choice[squared[choice].argmin(axis=0)])
    return nearest


def distances_within(features: Features, choice: Rows, sample: Int64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    """Return the distance of each sampled position of a selection to the nearest other row of the selection."""
    chosen = features[choice]
    x, norms = _centered(chosen)
    nearest = np.empty(len(sample))
    for start in range(0, len(sample), _BLOCK):
        positions = sample[start : start + _BLOCK]
        squared = norms - 2.0 * (x[positions] @ x.T)
        squared[np.arange(len(positions)), positions] = np.inf
        nearest[start : start + _BLOCK] = _distances(chosen, positions, squared.argmin(axis=1))
    return nearest


def _centered(features: Features) -> tuple[Float64[np.ndarray, "n d"], Float64[np.ndarray, " n"]]:
    """Return the features around a center that is robust to outliers, and their squared norms."""
    x = features.astype(np.float64) - central(features)
    return x, np.einsum("nd,nd->n", x, x)


def _distances(features: Features, rows: np.ndarray, others: np.ndarray) -> Float64[np.ndarray, " m"]:
    return np.linalg.norm(features[rows].astype(np.float64) - features[others], axis=1)


def duplicate_share(labels: Int64[np.ndarray, " n"], choice: Rows) -> float:
    """Return the share of a selection that has the same features as another row of the selection."""
    _, inverse, counts = np.unique(labels[choice], return_inverse=True, return_counts=True)
    return float((counts[inverse] > 1).mean())


def typical_distance(features: Features, rows: Rows) -> float:
    """Return the median distance of neighbors in a shuffled sample; 1 if no two differ."""
    distances = _distances(features, rows[1:], rows[:-1])
    return float(np.median(distances[distances > 0])) if (distances > 0).any() else 1.0


def signals(scores: Scores) -> Mapping[str, Float64[np.ndarray, " n"]]:
    """Return the uncertainty scores and the lengths of every prompt; constant ones are left out."""
    named: dict[str, np.ndarray] = {"prompt length": scores.prompt_lengths}
    if scores.tokens is not None:
        named["response length"] = scores.tokens.lengths
        named |= {name: measure.score(scores) for name, measure in UNCERTAINTIES.items()}
    return {name: np.asarray(values, dtype=np.float64) for name, values in named.items() if np.ptp(values) > 0}


def rank_correlations(values: Sequence[Float64[np.ndarray, " n"]]) -> Float64[np.ndarray, "s s"]:
    """Return Spearman's correlation of each pair."""
    from scipy.stats import rankdata

    return np.corrcoef(rankdata(np.asarray(values), axis=1))


def principal_axes(features: Features, sample: Rows) -> tuple[Float32[np.ndarray, "n 2"], tuple[float, float]]:
    """Project all rows on the two axes along which the sample varies most; also return the variance these explain."""
    from sklearn.decomposition import PCA

    pca = PCA(n_components=2, svd_solver="covariance_eigh").fit(features[sample])
    first, second = pca.explained_variance_ratio_.tolist()
    return pca.transform(features), (first, second)
