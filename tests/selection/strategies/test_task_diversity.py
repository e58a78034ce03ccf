"""Round-robin and quotas over tasks, against loops that follow their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aliquot.selection.strategies.task_diversity import TaskDiversity, mean_confidence
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, TokenStats

UNSURE = TaskDiversity(quotas="inverse_confidence")


def pool_of(tasks: list[str], prompts: list[str] | None = None) -> Pool:
    ids = [str(i) for i in range(len(tasks))]
    return Pool("test", ids, prompts or ids, tasks)


def scores_of(top1: np.ndarray, features: np.ndarray | None = None) -> Scores:
    """One token per prompt."""
    n = len(top1)
    ones, top1 = np.ones(n, dtype=np.int64), top1.astype(np.float32)
    x = np.zeros((n, 1)) if features is None else features
    return Scores(x.astype(np.float32), ones, TokenStats(ones, top1, top1, top1 / 2))


def picked_tasks(strategy: TaskDiversity, tasks: list[str], scores: Scores | None = None) -> list[str]:
    order = rank(strategy, pool_of(tasks), scores, len(tasks)).indices
    return [tasks[i] for i in order]


@settings(max_examples=40, deadline=None)
@given(tasks=st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_every_round_takes_one_prompt_of_each_task_that_has_any_left(tasks: list[str], seed: int) -> None:
    order = picked_tasks(TaskDiversity(seed=seed), tasks)
    left, at = {task: tasks.count(task) for task in tasks}, 0
    while any(left.values()):
        having = [task for task in left if left[task]]
        assert sorted(order[at : at + len(having)]) == sorted(having)
        left = {task: max(0, left[task] - 1) for task in left}
        at += len(having)


@pytest.mark.slow
def test_every_prompt_of_a_task_is_as_likely_and_so_is_every_task() -> None:
    pool = pool_of(["a"] * 3 + ["b"] * 2)
    first = [rank(TaskDiversity(seed=seed), pool, None, 2).indices for seed in range(1000)]
    counts = np.bincount(np.concatenate(first), minlength=5) / 1000
    np.testing.assert_allclose(counts, [1 / 3] * 3 + [1 / 2] * 2, atol=0.06)
    assert np.mean([one[0] < 3 for one in first]) == pytest.approx(0.5, abs=0.06)


def test_of_equal_prompts_the_lower_row_comes_first() -> None:
    pool = pool_of(["a", "b"] * 50, ["the same"] * 60 + [f"{i % 20}" for i in range(40)])
    for seed in range(5):
        position = np.argsort(rank(TaskDiversity(seed=seed), pool, None, 100).indices)
        assert (np.diff(position[0:60:2]) > 0).all() and (np.diff(position[1:60:2]) > 0).all()
        assert (position[60:80] < position[80:]).all()


def test_every_prefix_shares_itself_out_as_the_confidence_says() -> None:
    confidence = {"a": 0.9, "b": 0.3, "c": 0.6, "d": 0.1}
    tasks = [*confidence] * 500
    order = np.array(picked_tasks(UNSURE, tasks, scores_of(np.array([confidence[task] for task in tasks]))))
    total = sum(1 / c for c in confidence.values())
    for k in range(1, 600):  # until the task d has no prompt left
        for task, c in confidence.items():
            assert abs((order[:k] == task).sum() - k / c / total) <= 1


def test_what_a_small_task_cannot_fill_flows_to_the_others_as_the_quotas_say() -> None:
    confidence = {"small": 0.05, "b": 0.4, "c": 0.8}
    tasks = ["small"] * 10 + ["b"] * 400 + ["c"] * 400
    scores = scores_of(np.array([confidence[task] for task in tasks]))
    order = np.array(picked_tasks(UNSURE, tasks, scores))
    counts = {task: (order[:310] == task).sum() for task in confidence}
    assert counts["small"] == 10
    assert abs(counts["b"] - 200) <= 1 and abs(counts["c"] - 100) <= 1


def test_equal_confidence_is_round_robin() -> None:
    tasks = list("aaaabbbccd") * 3
    scores = scores_of(np.full(30, 0.5))
    np.testing.assert_array_equal(
        rank(UNSURE, pool_of(tasks), scores, 30).indices, rank(TaskDiversity(), pool_of(tasks), scores, 30).indices
    )


def test_confidence_is_the_geometric_mean_over_tokens_and_the_mean_over_prompts() -> None:
    top1 = np.array([0.9, 0.4, 0.5, 0.2], dtype=np.float32)
    tokens = TokenStats(np.array([2, 1, 1]), top1, top1, top1 / 2)
    scores = Scores(np.zeros((3, 1), dtype=np.float32), np.ones(3, dtype=np.int64), tokens)
    found = mean_confidence(scores, np.array([0, 0, 1]))
    np.testing.assert_allclose(found, [(np.sqrt(0.9 * 0.4) + 0.5) / 2, 0.2], rtol=1e-6)


def test_clusters_stand_in_for_tasks_without_labels() -> None:
    rng = np.random.default_rng(0)
    heap = np.repeat(np.arange(3), [60, 5, 20])
    scores = scores_of(np.full(85, 0.5), np.eye(3)[heap] * 50 + rng.normal(size=(85, 3)))
    pool = Pool("unlabeled", [str(i) for i in range(85)], [f"{i}" for i in range(85)])
    strategy = TaskDiversity(groups="clusters", num_clusters=3, seed=1)
    order = heap[rank(strategy, pool, scores, 15).indices]
    assert all(sorted(order[i : i + 3]) == [0, 1, 2] for i in range(0, 15, 3))


@pytest.mark.parametrize(
    ("fields", "required"),
    [
        ({}, {"tasks"}),
        ({"groups": "clusters"}, {"features"}),
        ({"quotas": "inverse_confidence"}, {"tasks", "tokens"}),
        ({"groups": "clusters", "quotas": "inverse_confidence"}, {"features", "tokens"}),
    ],
)
def test_it_requires_what_its_choices_read(fields: dict[str, str], required: set[str]) -> None:
    assert TaskDiversity(**fields).requires == required


@pytest.mark.parametrize(
    ("bad", "remedy"),
    [
        ({"groups": "labels"}, "use tasks or clusters"),
        ({"quotas": "confidence"}, "use uniform or inverse_confidence"),
        ({"num_clusters": 0}, "use 1 or more"),
        ({"seed": -1}, "use 0 or more"),
    ],
)
def test_choices_that_mean_nothing_are_refused_with_the_remedy(bad: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        TaskDiversity(**bad)
