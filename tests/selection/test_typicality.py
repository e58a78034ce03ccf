"""How typical rows are, against the definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aliquot.selection.typicality as module
from aliquot.selection.typicality import typicality


def by_definition(x: np.ndarray, labels: np.ndarray, m: int) -> np.ndarray:
    mean = np.zeros(len(x))
    for i in range(len(x)):
        others = np.flatnonzero((labels == labels[i]) & (np.arange(len(x)) != i))
        if len(others):
            distances = np.sqrt(np.square(x[others].astype(np.float64) - x[i]).sum(axis=1))
            mean[i] = np.sort(distances)[:m].mean()
    return mean


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 60),
    distinct=st.integers(1, 60),
    groups=st.integers(1, 6),
    m=st.sampled_from([1, 3, 20]),
    scale=st.sampled_from([1e-30, 1.0, 1e12]),
)
def test_equals_the_definition_with_equal_rows_and_groups_of_any_size(
    seed: int, n: int, distinct: int, groups: int, m: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    x = (scale * rng.normal(size=(distinct, 4)))[rng.integers(distinct, size=n)].astype(np.float32)
    labels = rng.integers(-1, groups, size=n)
    np.testing.assert_allclose(typicality(x, labels, m), by_definition(x, labels, m), rtol=1e-12)


@pytest.mark.parametrize("pairs", [1, 1000, 1 << 21])
def test_equal_rows_tie_exactly_whatever_the_blocks(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 37)).astype(np.float32)
    labels = rng.integers(3, size=150)
    expected = typicality(np.tile(x, (2, 1)), np.tile(labels, 2))
    monkeypatch.setattr(module, "_PAIRS", pairs)
    found = typicality(np.tile(x, (2, 1)), np.tile(labels, 2))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[:150], found[150:])


def test_tight_heaps_far_apart_keep_their_distances() -> None:
    rng = np.random.default_rng(0)
    heap = np.repeat([0.0, 1e4], 40)
    x = (heap[:, None] + rng.normal(size=(80, 6)) * 0.1).astype(np.float32)
    labels = np.zeros(80, dtype=np.int64)
    np.testing.assert_allclose(typicality(x, labels, 5), by_definition(x, labels, 5), rtol=1e-12)
