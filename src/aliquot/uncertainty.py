"""How unsure the model was of its own greedy response: one float64 score per prompt, larger = more uncertain.

Each token t of a response of T tokens has an entropy H(p_t) in nats and its two largest probabilities
p1_t >= p2_t. A score is a measure of one token, reduced over the tokens of a prompt:

    mean_entropy       mean_t H(p_t)
    max_entropy        max_t H(p_t)
    least_confidence   -(1/T) sum_t log p1_t, or 1 - prod_t p1_t where it is not normalised
    mean_margin        -mean_t (p1_t - p2_t)
    min_margin         -min_t (p1_t - p2_t)

The names are those of Bhatt et al. 2024 (arXiv 2401.06692). Extremes over tokens grow with T, means do not.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from aliquot.types import TokenStats

Score = Float64[np.ndarray, " n"]


def mean_entropy(tokens: TokenStats) -> Score:
    """Return the mean entropy of the tokens of each response, in nats."""
    return _mean(tokens.entropy.astype(np.float64), tokens)


def max_entropy(tokens: TokenStats) -> Score:
    """Return the entropy of the most uncertain token of each response, in nats."""
    return np.maximum.reduceat(tokens.entropy.astype(np.float64), tokens.starts)


def least_confidence(tokens: TokenStats, normalize: bool = True) -> Score:
    """Return how improbable each response is to the model that wrote it.

    Args:
        tokens: token statistics.
        normalize: True for the mean negative log-probability of a token, in nats; False for one minus the
            probability of the whole response, which grows with its length.
    """
    log_top1 = np.log(tokens.top1.astype(np.float64))
    if normalize:
        return -_mean(log_top1, tokens)
    return -np.expm1(np.add.reduceat(log_top1, tokens.starts))


def mean_margin(tokens: TokenStats) -> Score:
    """Return minus the mean margin between the two most probable tokens, in [-1, 0]."""
    return -_mean(_margin(tokens), tokens)


def min_margin(tokens: TokenStats) -> Score:
    """Return minus the narrowest margin between the two most probable tokens, in [-1, 0]."""
    return -np.minimum.reduceat(_margin(tokens), tokens.starts)


def _margin(tokens: TokenStats) -> Float64[np.ndarray, " t"]:
    return tokens.top1.astype(np.float64) - tokens.top2


def _mean(values: Float64[np.ndarray, " t"], tokens: TokenStats) -> Score:
    return np.add.reduceat(values, tokens.starts) / tokens.lengths
