"""Teach the last layer: the prompts whose tokens give the most information about its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aliquot.scoring.features import root_mean_square_norm
from aliquot.selection.cost_aware import CostAwareGreedy
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.purse import Purse
from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class InformationGain(CostAwareGreedy):
    """Greedily pick what most raises f(S) = log det(sigma^2 I + sum_{i in S} X_i^T X_i), X_i prompt i's token features.

    FisherSFT (Deb et al. 2025, arXiv 2505.14826): a greedy design on a lower bound of the log-determinant of the last
    layer's Hessian. Within 1 - 1/e of the best increase of f (Nemhauser, Wolsey, Fisher 1978). Gains are cached as
    upper bounds and recomputed only if that can change a pick, which is fast and stays exact. A pick's gain is its
    marginal gain in nats, so the gains sum to f(S) - f of the empty set. Zero-vector tokens gain nothing.

    Args:
        sigma: prior knowledge, as if from tokens of this length in each direction: the larger, the more tokens it takes
            until a direction counts as known. In units of u.
        unit: "rms" for u = the root mean square length of the pool's token vectors (ours: the same sigma then works
            for every model), "absolute" for u = 1.
        length: "raw", with which long prompts gain more, or "sqrt" for X_i / sqrt(T_i), where each counts as one token.
        max_tokens: read only the last N tokens of each prompt; None reads all that the scorer keeps.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"token_features"})
    nested: ClassVar[bool] = True

    sigma: float = 1.0
    unit: str = "rms"
    length: str = "raw"
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        check_sigma(self.sigma, self.unit)
        if self.length not in ("raw", "sqrt"):
            raise ValueError(f"length '{self.length}' is unknown; use raw or sqrt")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens {self.max_tokens} leaves no token; use 1 or more, or null for all")

    def extend(
        self,
        pool: Pool,
        scores: Scores | None,
        start: Selection,
        k: int,
        workspace: Workspace,
        purse: Purse | None = None,
    ) -> Selection:
        from aliquot.selection.greedy.information import Blocks, information_gain  # imports torch

        assert scores is not None and scores.token_features is not None
        vectors, lengths = scores.token_features.vectors, scores.token_features.lengths
        kept = lengths if self.max_tokens is None else np.minimum(lengths, self.max_tokens)
        starts = scores.token_features.starts + lengths - kept
        scale = (
            1 / noise(self.sigma, self.unit, vectors) / (np.sqrt(kept) if self.length == "sqrt" else np.ones(len(kept)))
        )
        blocks = Blocks(vectors, starts, kept, scale)
        return information_gain(blocks, start, k, workspace, "information gain", purse)


def check_sigma(sigma: float, unit: str) -> None:
    """Raise ValueError unless `sigma` and its unit form a valid prior."""
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma {sigma} leaves f without a bound; use a positive number, such as 1.0")
    if unit not in ("rms", "absolute"):
        raise ValueError(f"unit '{unit}' of sigma is unknown; use rms or absolute")


def noise(sigma: float, unit: str, vectors: np.ndarray) -> float:
    """Return sigma in the units of `vectors`; if these are all zero, the unit does not matter."""
    return sigma * (1.0 if unit == "absolute" else root_mean_square_norm(vectors) or 1.0)
