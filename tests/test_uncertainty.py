"""Each score against a loop over prompts that follows its definition word by word."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aliquot import uncertainty
from aliquot.types import TokenStats

DEFINITIONS = {
    "mean_entropy": lambda h, p1, p2: sum(h) / len(h),
    "max_entropy": lambda h, p1, p2: max(h),
    "mean_margin": lambda h, p1, p2: -sum(a - b for a, b in zip(p1, p2, strict=True)) / len(h),
    "min_margin": lambda h, p1, p2: -min(a - b for a, b in zip(p1, p2, strict=True)),
    "least_confidence": lambda h, p1, p2: -sum(math.log(a) for a in p1) / len(h),
}


def make_tokens(lengths: list[int], seed: int = 0) -> TokenStats:
    rng = np.random.default_rng(seed)
    top1 = rng.uniform(0.05, 1.0, size=sum(lengths)).astype(np.float32)
    top2 = (top1 * rng.uniform(0.0, 1.0, size=len(top1))).astype(np.float32)
    return TokenStats(np.array(lengths), rng.gamma(1.0, size=len(top1)).astype(np.float32), top1, top2)


def by_prompt(tokens: TokenStats) -> list[tuple[list[float], list[float], list[float]]]:
    prompts, start = [], 0
    for length in tokens.lengths.tolist():
        part = slice(start, start + length)
        prompts.append((tokens.entropy[part].tolist(), tokens.top1[part].tolist(), tokens.top2[part].tolist()))
        start += length
    return prompts


@pytest.mark.parametrize("name", DEFINITIONS)
@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_scores_follow_their_definition(name: str, lengths: list[int], seed: int) -> None:
    tokens = make_tokens(lengths, seed)
    expected = [DEFINITIONS[name](*prompt) for prompt in by_prompt(tokens)]
    score = getattr(uncertainty, name)(tokens)
    assert score.dtype == np.float64
    np.testing.assert_allclose(score, expected, rtol=1e-12)


def test_unnormalised_confidence_is_the_probability_of_the_whole_response() -> None:
    tokens = make_tokens([1, 4, 7])
    expected = [1 - math.prod(p1) for _, p1, _ in by_prompt(tokens)]
    np.testing.assert_allclose(uncertainty.least_confidence(tokens, normalize=False), expected, rtol=1e-12)


def test_a_sure_model_scores_lowest_and_a_clueless_one_highest() -> None:
    vocabulary = 50
    sure, clueless = (0.0, 1.0, 0.0), (math.log(vocabulary), 1 / vocabulary, 1 / vocabulary)
    columns = np.array([sure, sure, clueless, clueless], dtype=np.float32).T
    tokens = TokenStats(np.array([2, 2]), *columns)
    for name in DEFINITIONS:
        low, high = getattr(uncertainty, name)(tokens)
        assert low < high, name


def test_a_prompt_scores_the_same_whatever_stands_beside_it() -> None:
    tokens = make_tokens([3, 5, 2])
    alone = TokenStats(tokens.lengths[1:2], tokens.entropy[3:8], tokens.top1[3:8], tokens.top2[3:8])
    for name in DEFINITIONS:
        assert getattr(uncertainty, name)(tokens)[1] == getattr(uncertainty, name)(alone)[0]
