"""Instruction-following difficulty (Li et al. 2023, From Quantity to Quality, arXiv 2308.12032). An upper reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from aliquot.selection.upper_reference import UpperReference
from aliquot.types import ResponseSignals


@dataclass(frozen=True, kw_only=True)
class Ifd(UpperReference):
    """Take the rows whose prompt helps the model least to predict the response.

    The difficulty is s(A|Q) / s(A), the mean loss of the response after its prompt over that of the response alone;
    the largest goes first. Above 1 the prompt makes the response less likely, and the paper removes such rows as
    misaligned. Here they come last, the nearest to 1 first, and their worth is the negated ratio.
    """

    def worth(self, signals: ResponseSignals) -> Float64[np.ndarray, " n"]:
        # A response that is certain without its prompt cannot be helped by it: the ratio is 1.
        known = signals.loss_alone > 0
        ratio = np.divide(signals.loss, signals.loss_alone, out=np.ones(len(signals)), where=known)
        return np.where(ratio > 1, -ratio, ratio)
