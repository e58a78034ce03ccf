"""How good a response is, and what weight each row has in a mean."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from aliquot.evaluation.weightings import ROWS, TASKS

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(response: str, right: str) -> float:
    """Return 1 if two texts are equal but for white space, else 0."""
    return float(response.split() == right.split())


def token_f1(response: str, right: str) -> float:
    """Return the F1 of the words that two texts share, between 0 and 1 (SQuAD, Rajpurkar et al. 2016).

    Words are compared in lower case, without punctuation and English articles. Two texts without a word are equal.
    """
    words, wanted = _words(response), _words(right)
    if not words or not wanted:
        return float(words == wanted)
    shared = sum((Counter(words) & Counter(wanted)).values())
    return 2 * shared / (len(words) + len(wanted))


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def task_shares(tasks: Sequence[str]) -> dict[str, float]:
    """Return the share of rows that each task has."""
    return {task: count / len(tasks) for task, count in sorted(Counter(tasks).items())}


def weights(
    tasks: Sequence[str] | None, num_rows: int, weighting: str, shares: Mapping[str, float] | None
) -> Float64[np.ndarray, " n"] | None:
    """Return the weight of each row, with mean 1; None if the weighting needs labels that are not there.

    Args:
        tasks: the label of each row, or None.
        num_rows: how many rows there are.
        weighting: one of `WEIGHTINGS`. Those of the pool and the target weigh each row by its task's share there over
            its task's share of the rows; tasks that only one of both has do not count.
        shares: the share of each task in the pool or the target, or None if it is not labeled.
    """
    if weighting == ROWS:
        return np.ones(num_rows)
    if tasks is None or (weighting != TASKS and shares is None):
        return None
    own = task_shares(tasks)
    wanted = dict.fromkeys(own, 1.0) if weighting == TASKS else {task: (shares or {}).get(task, 0.0) for task in own}
    total = sum(wanted.values())
    if not total:
        return None
    return np.array([wanted[task] / total / own[task] for task in tasks])


def weighted_mean(values: Float64[np.ndarray, " n"], weight: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """Return the weighted mean and its standard error; the weights have mean 1.

    With equal weights the error is the usual one, s / sqrt(n).
    """
    mean, count = float(np.mean(values * weight)), len(values)
    squares = float(np.square(weight * (values - mean)).sum())
    return mean, math.sqrt(squares / count / max(1, count - 1))
