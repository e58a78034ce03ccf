"""Annotate first what the model is least sure of (Bhatt et al. 2024, arXiv 2401.06692)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aliquot import uncertainty
from aliquot.types import Pool, Scores, Selection

log = logging.getLogger(__name__)

#: The measures without a parameter of their own, by name.
MEASURES = {
    "mean_entropy": uncertainty.mean_entropy,
    "max_entropy": uncertainty.max_entropy,
    "mean_margin": uncertainty.mean_margin,
    "min_margin": uncertainty.min_margin,
}


@dataclass(frozen=True)
class Uncertainty:
    """Order prompts by a measure of `aliquot.uncertainty`, the most uncertain first.

    Args:
        measure: a name of `MEASURES`.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"tokens"})
    nested: ClassVar[bool] = True

    measure: str

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise ValueError(f"uncertainty measure '{self.measure}' is unknown; use one of {', '.join(MEASURES)}")

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        assert scores is not None and scores.tokens is not None
        score = MEASURES[self.measure](scores.tokens)
        _log_lengths(self.measure, score, scores)
        return largest(score, k)


@dataclass(frozen=True)
class LeastConfidence:
    """Order prompts by how improbable the model's own response is, the least probable first.

    Args:
        normalize: True for the mean over tokens of -log p; False for 1 - p(response), which favours long ones.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"tokens"})
    nested: ClassVar[bool] = True

    normalize: bool = True

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        assert scores is not None and scores.tokens is not None
        score = uncertainty.least_confidence(scores.tokens, self.normalize)
        _log_lengths("least_confidence", score, scores)
        return largest(score, k)


def largest(score: uncertainty.Score, k: int) -> Selection:
    """Return the k rows of largest score, ties to the lower row; a pick's gain is its score."""
    indices = np.argsort(-score, kind="stable")[:k]
    return Selection(indices.astype(np.int64), score[indices].astype(np.float64))


def _log_lengths(name: str, score: uncertainty.Score, scores: Scores) -> None:
    """Say how far the measure is a matter of length: extremes over tokens grow with their number."""
    assert scores.tokens is not None
    of_response, of_prompt = (_correlation(score, n) for n in (scores.tokens.lengths, scores.prompt_lengths))
    log.info("%s correlates %.2f with the length of the response, %.2f of the prompt", name, of_response, of_prompt)


def _correlation(score: uncertainty.Score, lengths: np.ndarray) -> float:
    """Return Pearson's correlation; 0 where one of the two is constant."""
    if np.ptp(score) == 0 or np.ptp(lengths) == 0:
        return 0.0
    return float(np.corrcoef(score, lengths)[0, 1])
