"""The largest loss first: what the base model has most to learn from. An upper reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from aliquot.selection.upper_reference import UpperReference
from aliquot.types import ResponseSignals


@dataclass(frozen=True, kw_only=True)
class Learnability(UpperReference):
    """Take the rows whose response the base model predicts worst, by its mean loss per token in nats.

    Ours, and the simplest of the kind. It is not the reducible loss of Mindermann et al. (2022, arXiv 2206.07137),
    which subtracts the loss of a model trained on held-out data: responses that are only noise come first here.
    """

    def worth(self, signals: ResponseSignals) -> Float64[np.ndarray, " n"]:
        return signals.loss
