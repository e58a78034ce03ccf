"""Products of sketches: never below those of the vectors, and chosen by what they save."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aliquot.selection.greedy.sketches import Sketch, cheapest, principal


def points_of(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Vectors that are longer along some axes than along others, as features of models are."""
    rng = np.random.default_rng(seed)
    return ((3.0 + rng.normal(size=(n, d))) * np.geomspace(10, 0.1, d)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(d=st.integers(1, 40), seed=st.integers(0, 99), data=st.data())
def test_products_are_at_least_those_of_the_vectors(d: int, seed: int, data: st.DataObject) -> None:
    x = points_of(60, d, seed)
    mean = x.mean(axis=0)
    h = data.draw(st.integers(0, d))
    seen = Sketch(mean, principal(x, mean)[:, :h])
    sketches, centered = seen.of(x), (x - mean).astype(np.float64)
    assert sketches.shape == (60, seen.width) == (60, h + 1)
    slack = 1e-5 * np.square(centered).sum(axis=1).max()
    assert (sketches @ sketches.T >= centered @ centered.T - slack).all()
    np.testing.assert_allclose(np.square(sketches).sum(axis=1), np.square(centered).sum(axis=1), rtol=1e-4, atol=slack)


def test_without_directions_a_sketch_is_the_centered_vector() -> None:
    x = points_of(9, 5)
    np.testing.assert_array_equal(Sketch(x[0]).of(x), x - x[0])


@pytest.mark.parametrize(("radius", "least", "most"), [(np.inf, 64, 64), (5.0, 9, 33), (0.0, 9, 9)])
def test_the_smaller_the_bounds_the_fewer_dimensions_are_seen(radius: float, least: int, most: int) -> None:
    x = points_of(3000, 64)
    mean = x.mean(axis=0)
    found = cheapest(mean, principal(x, mean), x[:50], np.full(50, radius**2), x[100:300], 10_000, 800)
    assert least <= found.width <= most


def test_where_every_direction_counts_alike_all_are_seen_while_bounds_are_wide() -> None:
    x = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32)
    mean = x.mean(axis=0)
    found = cheapest(mean, principal(x, mean), x[:50], np.full(50, 100.0), x[100:300], 10_000, 800)
    assert found.directions is None


def test_points_that_meet_few_centers_are_not_sketched() -> None:
    x = points_of(3000, 64)
    mean, near = x.mean(axis=0), np.full(50, 1.0)
    assert cheapest(mean, principal(x, mean), x[:50], near, x[100:300], 10, 800).directions is None
