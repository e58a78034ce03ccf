"""Each score against a loop over prompts that follows its definition word by word."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from aliquot.selection.uncertainty import ResponseUncertainty
from aliquot.types import Scores, TokenStats

#: By measure, reduction and normalize.
DEFINITIONS = {
    ("entropy", "mean", True): lambda h, p1, p2: sum(h) / len(h),
    ("entropy", "mean", False): lambda h, p1, p2: sum(h),
    ("entropy", "max", True): lambda h, p1, p2: max(h),
    ("confidence", "mean", True): lambda h, p1, p2: -sum(math.log(a) for a in p1) / len(h),
    ("confidence", "mean", False): lambda h, p1, p2: 1 - math.prod(p1),
    ("confidence", "max", True): lambda h, p1, p2: -math.log(min(p1)),
    ("margin", "mean", True): lambda h, p1, p2: -sum(a - b for a, b in zip(p1, p2, strict=True)) / len(h),
    ("margin", "mean", False): lambda h, p1, p2: -sum(a - b for a, b in zip(p1, p2, strict=True)),
    ("margin", "max", True): lambda h, p1, p2: -min(a - b for a, b in zip(p1, p2, strict=True)),
}


def make_tokens(lengths: list[int], seed: int = 0) -> TokenStats:
    rng = np.random.default_rng(seed)
    top1 = rng.uniform(0.05, 1.0, size=sum(lengths)).astype(np.float32)
    top2 = (top1 * rng.uniform(0.0, 1.0, size=len(top1))).astype(np.float32)
    return TokenStats(np.array(lengths), rng.gamma(1.0, size=len(top1)).astype(np.float32), top1, top2)


def scores_of(tokens: TokenStats, prompt_lengths: np.ndarray | None = None) -> Scores:
    n = len(tokens.lengths)
    lengths = np.ones(n, dtype=np.int64) if prompt_lengths is None else prompt_lengths
    return Scores(np.zeros((n, 1), dtype=np.float32), lengths, tokens)


def by_prompt(tokens: TokenStats) -> list[tuple[list[float], list[float], list[float]]]:
    prompts, start = [], 0
    for length in tokens.lengths.tolist():
        part = slice(start, start + length)
        prompts.append((tokens.entropy[part].tolist(), tokens.top1[part].tolist(), tokens.top2[part].tolist()))
        start += length
    return prompts


@pytest.mark.slow
@pytest.mark.parametrize("choice", DEFINITIONS)
@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_scores_follow_their_definition(choice: tuple[str, str, bool], lengths: list[int], seed: int) -> None:
    tokens = make_tokens(lengths, seed)
    expected = [DEFINITIONS[choice](*prompt) for prompt in by_prompt(tokens)]
    score = ResponseUncertainty(*choice).score(scores_of(tokens))
    assert score.dtype == np.float64
    np.testing.assert_allclose(score, expected, rtol=1e-12)


def test_a_sure_model_scores_lowest_and_a_clueless_one_highest() -> None:
    vocabulary = 50
    sure, clueless = (0.0, 1.0, 0.0), (math.log(vocabulary), 1 / vocabulary, 1 / vocabulary)
    columns = np.array([sure, sure, clueless, clueless], dtype=np.float32).T
    tokens = TokenStats(np.array([2, 2]), *columns)
    for choice in DEFINITIONS:
        low, high = ResponseUncertainty(*choice).score(scores_of(tokens))
        assert low < high, choice


def test_a_prompt_scores_the_same_whatever_stands_beside_it() -> None:
    tokens = make_tokens([3, 5, 2])
    alone = TokenStats(tokens.lengths[1:2], tokens.entropy[3:8], tokens.top1[3:8], tokens.top2[3:8])
    for choice in DEFINITIONS:
        of = ResponseUncertainty(*choice)
        assert of.score(scores_of(tokens))[1] == of.score(scores_of(alone))[0]


@pytest.mark.parametrize("residualize", ["response", "prompt", "both"])
def test_a_residual_is_that_of_scikit_learns_regression_on_log_lengths(residualize: str) -> None:
    rng = np.random.default_rng(0)
    tokens = make_tokens(rng.integers(1, 30, size=200).tolist())
    scores = scores_of(tokens, rng.integers(5, 90, size=200))
    score = ResponseUncertainty("entropy", "max").score(scores)
    logs = {"response": np.log(tokens.lengths), "prompt": np.log(scores.prompt_lengths)}
    x = np.column_stack([logs[name] for name in (logs if residualize == "both" else [residualize])])
    expected = score - LinearRegression().fit(x, score).predict(x) + score.mean()
    found = ResponseUncertainty("entropy", "max", residualize=residualize).score(scores)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    for column in x.T:
        assert abs(np.corrcoef(found, column)[0, 1]) < 1e-10
    assert found.mean() == pytest.approx(score.mean(), rel=1e-12)


def test_lengths_that_are_all_the_same_explain_nothing() -> None:
    scores = scores_of(make_tokens([7] * 20), np.full(20, 31))
    plain = ResponseUncertainty("margin").score(scores)
    np.testing.assert_array_equal(ResponseUncertainty("margin", residualize="both").score(scores), plain)


def test_lengths_that_move_together_explain_it_once() -> None:
    tokens = make_tokens(list(range(1, 40)))
    both = ResponseUncertainty("entropy", "max", residualize="both").score(scores_of(tokens, 3 * tokens.lengths))
    one = ResponseUncertainty("entropy", "max", residualize="response").score(scores_of(tokens))
    np.testing.assert_allclose(both, one, atol=1e-9)


def test_equal_prompts_keep_equal_residuals() -> None:
    tokens = make_tokens([3, 9, 4, 4, 30] * 40)
    part = TokenStats(tokens.lengths, *(np.tile(a[:50], 40) for a in (tokens.entropy, tokens.top1, tokens.top2)))
    found = ResponseUncertainty(residualize="both").score(scores_of(part, np.tile([5, 7, 9, 9, 2], 40)))
    np.testing.assert_array_equal(found, np.tile(found[:5], 40))


@pytest.mark.parametrize(
    ("bad", "remedy"),
    [
        ({"measure": "mean_entropy"}, "use one of entropy, confidence, margin"),
        ({"reduction": "min"}, "use one of mean, max"),
        ({"residualize": "length"}, "use one of none, response, prompt, both"),
        ({"reduction": "max", "normalize": False}, "use reduction=mean"),
    ],
)
def test_choices_that_mean_nothing_are_refused_with_the_remedy(bad: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        ResponseUncertainty(**bad)
