"""The maximiser against greedy on the full float64 matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pools import greedy_gap, matrix, mixture, naive_greedy

from aliquot.selection.greedy import bounds, workers
from aliquot.selection.greedy import facility_location as submodular
from aliquot.selection.greedy import passes as products
from aliquot.selection.greedy.facility_location import facility_location
from aliquot.selection.kernels import RBF, Cosine


def value(w: np.ndarray, chosen: np.ndarray) -> float:
    return float(w[:, chosen].max(axis=1).sum())


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [RBF(0.02), RBF(0.25), RBF(5.0), Cosine()], ids=str)
@pytest.mark.parametrize("cache_entries", [None, 3000, 0])
def test_equals_greedy_on_the_float64_matrix(kernel: RBF | Cosine, cache_entries: int | None) -> None:
    embedding = kernel.embed(mixture(400))
    w = matrix(embedding)
    selection = facility_location(embedding, 200, cache_entries=cache_entries)
    assert greedy_gap(w, selection.indices) < 1e-7
    assert value(w, selection.indices) == pytest.approx(value(w, naive_greedy(w, 200)[0]), rel=1e-6)
    assert selection.gains.sum() == pytest.approx(value(w, selection.indices), rel=1e-5)
    assert (np.diff(selection.gains) <= 0).all()


@pytest.mark.parametrize("kernel", [RBF(0.25), Cosine()], ids=str)
def test_picks_the_same_rows_as_greedy_where_nothing_ties(kernel: RBF | Cosine) -> None:
    x = np.random.default_rng(1).normal(size=(150, 8)).astype(np.float32)
    embedding = kernel.embed(x)
    np.testing.assert_array_equal(facility_location(embedding, 40).indices, naive_greedy(matrix(embedding), 40)[0])


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 60), seed=st.integers(0, 999), gamma=st.sampled_from([0.01, 0.3, 3.0]), cache=st.integers(0, 400)
)
def test_is_greedy_on_any_small_pool(n: int, seed: int, gamma: float, cache: int) -> None:
    embedding = RBF(gamma).embed(mixture(n, d=3, seed=seed))
    selection = facility_location(embedding, n, cache_entries=cache)
    assert sorted(selection.indices) == list(range(n))
    assert greedy_gap(matrix(embedding), selection.indices) < 1e-6


@pytest.mark.parametrize("n", [15, 16, 17, 31, 32, 33, 64, 65])
def test_the_borders_of_tiles_and_units_change_nothing(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = RBF().embed(mixture(n, seed=n))
    whole = facility_location(embedding, n)
    for name, size in {"STRIP": 16, "UNIT": 4, "WIDTH": 16, "_TASK": 2}.items():
        monkeypatch.setattr(products, name, size)
    for module in (bounds, submodular):
        monkeypatch.setattr(module, "UNIT", 4)
    monkeypatch.setattr(bounds, "STRIP", 16)
    small = facility_location(embedding, n)
    np.testing.assert_array_equal(small.indices, whole.indices)
    np.testing.assert_array_equal(small.gains, whole.gains)


@pytest.mark.parametrize("scratch", [1, 2000])
def test_candidates_whose_list_overflows_are_refreshed_exactly(scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = RBF().embed(mixture(300))
    expected = facility_location(embedding, 150)
    monkeypatch.setattr(submodular, "_SCRATCH", scratch)
    np.testing.assert_array_equal(facility_location(embedding, 150).indices, expected.indices)


@pytest.mark.slow
def test_the_memory_for_lists_changes_no_pick() -> None:
    embedding = RBF().embed(mixture(700))
    expected = facility_location(embedding, 350)
    for cache_entries in (0, 1, 500, 5_000, 50_000):
        selection = facility_location(embedding, 350, cache_entries=cache_entries)
        np.testing.assert_array_equal(selection.indices, expected.indices)
        np.testing.assert_array_equal(selection.gains, expected.gains)


def test_the_number_of_threads_changes_no_pick(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = RBF().embed(mixture(1500))
    runs = []
    for cores in (1, 4):
        monkeypatch.setattr(workers, "num_cores", lambda cores=cores: cores)
        runs.append(facility_location(embedding, 700))
    np.testing.assert_array_equal(runs[0].indices, runs[1].indices)
    np.testing.assert_array_equal(runs[0].gains, runs[1].gains)


@pytest.mark.parametrize("kernel", [RBF(), RBF(unit="absolute"), Cosine()], ids=str)
@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_equal_features_are_taken_in_order(kernel: RBF | Cosine, constant: float) -> None:
    selection = facility_location(kernel.embed(np.full((20, 4), constant, dtype=np.float32)), 20)
    np.testing.assert_array_equal(selection.indices, np.arange(20))
    np.testing.assert_array_equal(selection.gains, [20.0] + 19 * [0.0])
