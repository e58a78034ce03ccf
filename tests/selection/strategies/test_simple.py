"""Random, longest and the uncertainty strategies."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from aliquot.selection.strategies.longest import Longest
from aliquot.selection.strategies.random import Random
from aliquot.selection.strategies.uncertainty import Uncertainty
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, TokenStats


def pool_of(prompts: list[str]) -> Pool:
    return Pool("test", [str(i) for i in range(len(prompts))], prompts)


def test_random_is_reproducible_by_its_seed_and_differs_between_seeds() -> None:
    pool = pool_of(["x"] * 200)
    orders = [rank(Random(seed), pool, None, 200).indices.tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(200))


@pytest.mark.slow
def test_random_picks_every_prompt_equally_often() -> None:
    pool = pool_of(["x"] * 10)
    counts = np.bincount(np.concatenate([rank(Random(seed), pool, None, 3).indices for seed in range(2000)]))
    assert np.abs(counts / 2000 - 0.3).max() < 0.05


def test_longest_counts_characters_and_breaks_ties_by_row() -> None:
    selection = rank(Longest(), pool_of(["aa", "a b c", "bb", "long prompt"]), None, 4)
    assert selection.indices.tolist() == [3, 1, 0, 2]
    assert selection.gains.tolist() == [11.0, 5.0, 2.0, 2.0]


def test_uncertainty_takes_the_largest_score_first_and_reports_it() -> None:
    entropy = np.array([1.0, 3.0, 2.0, 2.5], dtype=np.float32)
    half = np.full(4, 0.5, dtype=np.float32)
    tokens = TokenStats(np.array([1, 2, 1]), entropy, half, half / 2)
    scores = Scores(np.zeros((3, 1), dtype=np.float32), np.ones(3, dtype=np.int64), tokens)
    selection = rank(Uncertainty(), pool_of(["x"] * 3), scores, 3)
    assert selection.indices.tolist() == [1, 2, 0]
    assert selection.gains.tolist() == [2.5, 2.5, 1.0]


def test_least_confidence_favours_long_responses_only_where_it_is_not_normalized() -> None:
    top1 = np.array([0.5, 0.8, 0.8, 0.8, 0.8, 0.8], dtype=np.float32)
    tokens = TokenStats(np.array([1, 5]), top1, top1, top1 / 8)
    scores = Scores(np.zeros((2, 1), dtype=np.float32), np.ones(2, dtype=np.int64), tokens)
    pool = pool_of(["x"] * 2)
    assert rank(Uncertainty("confidence"), pool, scores, 2).indices.tolist() == [0, 1]
    assert rank(Uncertainty("confidence", normalize=False), pool, scores, 2).indices.tolist() == [1, 0]


def test_the_log_tells_how_far_uncertainty_is_a_matter_of_length(caplog: pytest.LogCaptureFixture) -> None:
    entropy = np.array([1.0, 0.0, 2.0, 0.0, 0.0, 3.0], dtype=np.float32)
    tokens = TokenStats(np.array([1, 2, 3]), entropy, entropy / 9 + 0.5, entropy / 9)
    scores = Scores(np.zeros((3, 1), dtype=np.float32), np.array([5, 5, 5]), tokens)
    with caplog.at_level(logging.INFO, "aliquot"):
        rank(Uncertainty("entropy", "max"), pool_of(["x"] * 3), scores, 3)
        rank(Uncertainty("entropy", "max", residualize="response"), pool_of(["x"] * 3), scores, 3)
    assert "correlates 1.00 with the length of the response, 0.00 of the prompt" in caplog.messages[0]
    assert "residualize='response'" in caplog.messages[1]


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed -1"):
        Random(-1)
