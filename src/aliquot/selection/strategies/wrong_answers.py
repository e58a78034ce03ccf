"""The prompts that the base model itself answers wrong (SLearnLLM, arXiv 2505.17470). An upper reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from aliquot.selection.upper_reference import UpperReference
from aliquot.types import ResponseSignals


@dataclass(frozen=True, kw_only=True)
class WrongAnswers(UpperReference):
    """Take the rows whose own greedy response is wrong, then the others; in random order within both.

    The paper lets a model grade the answers, and trains on the wrong ones only. Here an answer is right if it equals
    the response but for white space. The worth of a row is 1 for a wrong answer, plus a random number below 1.

    Args:
        seed: of the random order.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; use 0 or more")

    def worth(self, signals: ResponseSignals) -> Float64[np.ndarray, " n"]:
        lots = np.random.default_rng(self.seed).permutation(len(signals)) / len(signals)
        return ~signals.correct + lots
