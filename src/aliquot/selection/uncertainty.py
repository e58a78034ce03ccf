"""How unsure the model was of its own greedy response: one float64 score per prompt, larger = more uncertain.

Each token t of a response of T tokens has an entropy H(p_t) in nats and its two largest probabilities p1_t >= p2_t.
A score is a measure of single tokens, reduced over the tokens of a prompt:

                 mean                 max                     mean, not normalized
    entropy      mean_t H(p_t)        max_t H(p_t)            sum_t H(p_t)
    confidence   -mean_t log p1_t     -min_t log p1_t         1 - prod_t p1_t
    margin       -mean_t (p1 - p2)    -min_t (p1_t - p2_t)    -sum_t (p1_t - p2_t)

Bhatt et al. 2024 (arXiv 2401.06692) name mean entropy, least (mean) confidence, mean margin, and as their own the
smallest margin. Extremes and sums over tokens grow with T, means do not; `residualize` removes such growth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from aliquot.types import Scores, TokenStats

Score = Float64[np.ndarray, " n"]

#: Per token, larger = more uncertain.
MEASURES: dict[str, Callable[[TokenStats], Float64[np.ndarray, " t"]]] = {
    "entropy": lambda tokens: tokens.entropy.astype(np.float64),
    "confidence": lambda tokens: -np.log(tokens.top1.astype(np.float64)),
    "margin": lambda tokens: tokens.top2 - tokens.top1.astype(np.float64),
}
REDUCTIONS = ("mean", "max")
#: The lengths that `residualize` may remove.
LENGTHS = {"none": (), "response": ("response",), "prompt": ("prompt",), "both": ("response", "prompt")}


@dataclass(frozen=True)
class ResponseUncertainty:
    """A score of the model's own responses; see the module docstring.

    Args:
        measure: per token: "entropy", "confidence" or "margin".
        reduction: over the tokens of a response: "mean", or "max" for its most uncertain token.
        normalize: for reduction="mean": False sums without dividing by T. For confidence, False gives the improbability
            1 - p(response) of the whole response.
        residualize: "none"; or "response", "prompt" or "both": a control that removes length from the score. Over the
            pool, the score is regressed on a constant and the logarithm of the number of tokens of the response, of the
            prompt, or both, by ordinary least squares; what the logarithms explain, about their means, is subtracted,
            so the mean stays. Lengths that are all the same explain nothing.
    """

    measure: str = "entropy"
    reduction: str = "mean"
    normalize: bool = True
    residualize: str = "none"

    def __post_init__(self) -> None:
        for name, allowed in (("measure", MEASURES), ("reduction", REDUCTIONS), ("residualize", LENGTHS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} '{getattr(self, name)}' is unknown; use one of {', '.join(allowed)}")
        if self.reduction == "max" and not self.normalize:
            raise ValueError("normalize=false sums over tokens and reduction=max does not; use reduction=mean with it")

    def score(self, scores: Scores) -> Score:
        """Return one number per prompt of the pool, larger = more uncertain."""
        assert scores.tokens is not None
        score = self._of(scores.tokens)
        lengths = {"response": scores.tokens.lengths, "prompt": scores.prompt_lengths}
        return residual(score, [np.log(lengths[name]) for name in LENGTHS[self.residualize]])

    def _of(self, tokens: TokenStats) -> Score:
        of_token = MEASURES[self.measure](tokens)
        if self.reduction == "max":
            return np.maximum.reduceat(of_token, tokens.starts)
        total = np.add.reduceat(of_token, tokens.starts)
        if self.normalize:
            return total / tokens.lengths
        return -np.expm1(-total) if self.measure == "confidence" else total


def residual(score: Score, explanations: list[Float64[np.ndarray, " n"]]) -> Score:
    """Subtract from a score the part that a linear regression on the explanations, each about its mean, explains."""
    columns = [values - values.mean() for values in explanations if np.ptp(values) > 0]
    if not columns:
        return score
    slopes = np.linalg.lstsq(np.column_stack(columns), score - score.mean(), rcond=None)[0]
    for slope, column in zip(slopes, columns, strict=True):
        score = score - slope * column
    return score
