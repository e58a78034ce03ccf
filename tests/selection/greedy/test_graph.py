"""Greedy on the neighbor graph against greedy on the same sparse matrix, and against apricot."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pools import mixture, naive_greedy

from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.greedy.fixed_point import ONE
from aliquot.selection.greedy.graph import greedy_on_graph
from aliquot.selection.greedy.neighbors import Neighbors, nearest
from aliquot.selection.kernels import RBF, Cosine, Kernel
from aliquot.types import Selection

NONE = Selection.none()


def dense(graph: Neighbors) -> np.ndarray:
    """The matrix of the graph in quanta: whole numbers, so that float64 sums are exact and ties are ties."""
    n, m = graph.rows.shape
    w = np.zeros((n, n))
    np.maximum.at(w, (np.repeat(np.arange(n), m), graph.rows.ravel()), graph.quanta.ravel())
    return w


def graph_of(x: np.ndarray, m: int, kernel: Kernel | None = None) -> Neighbors:
    return nearest((kernel or RBF()).embed(x), m, approximate=False, workspace=Workspace())


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [RBF(0.05), RBF(0.25), RBF(5.0), Cosine()], ids=str)
@pytest.mark.parametrize("m", [1, 6, 40])
def test_equals_naive_greedy_on_the_same_matrix_pick_by_pick(kernel: Kernel, m: int) -> None:
    graph = graph_of(mixture(300), m, kernel)
    indices, gains = naive_greedy(dense(graph), 300)
    selection = greedy_on_graph(graph, NONE, 300)
    np.testing.assert_array_equal(selection.indices, indices)
    np.testing.assert_array_equal(selection.gains, gains / ONE)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(1, 30), m=st.integers(1, 6), given_rows=st.integers(0, 4))
def test_equals_naive_greedy_on_any_graph_after_any_start(seed: int, n: int, m: int, given_rows: int) -> None:
    rng = np.random.default_rng(seed)
    m, given_rows = min(m, n), min(given_rows, n - 1)
    rows = np.array([rng.choice(n, m, replace=False) for _ in range(n)], dtype=np.int32)
    quanta = rng.choice(np.array([0, ONE // 4, ONE // 2, ONE], dtype=np.int32), size=(n, m))  # many ties
    start = Selection(rng.choice(n, given_rows, replace=False), np.full(given_rows, 7.0))
    selection = greedy_on_graph(Neighbors(rows, quanta), start, n)
    indices, gains = naive_greedy(dense(Neighbors(rows, quanta)), n, tuple(start.indices))
    np.testing.assert_array_equal(selection.indices, indices)
    np.testing.assert_array_equal(selection.gains, [*start.gains, *gains / ONE])


@pytest.mark.slow
def test_reaches_the_objective_of_apricot_on_the_sparse_matrix() -> None:
    from apricot import FacilityLocationSelection

    graph = graph_of(np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32), 12)
    w = dense(graph) / ONE
    # apricot's rows are the candidates and its columns what is covered.
    peer = FacilityLocationSelection(60, metric="precomputed", optimizer="lazy").fit(scipy.sparse.csr_matrix(w.T))
    selection = greedy_on_graph(graph, NONE, 60)
    assert selection.gains.sum() == pytest.approx(w[:, peer.ranking].max(axis=1).sum(), rel=1e-9)


@pytest.mark.parametrize("depth", [1, 50, 119])
def test_going_on_from_its_own_prefix_is_ranking_at_once(depth: int) -> None:
    graph = graph_of(mixture(250), 10)
    at_once = greedy_on_graph(graph, NONE, 120)
    extended = greedy_on_graph(graph, at_once.head(depth), 120)
    np.testing.assert_array_equal(extended.indices, at_once.indices)
    np.testing.assert_array_equal(extended.gains, at_once.gains)


def test_when_all_is_covered_the_duplicates_follow_by_row_with_gain_0() -> None:
    x = np.repeat(np.random.default_rng(0).normal(size=(10, 4)), 3, axis=0).astype(np.float32)
    selection = greedy_on_graph(graph_of(x, 5), NONE, 30)
    assert sorted(selection.indices[:10] // 3) == list(range(10))
    assert (selection.gains[:10] > 0).all() and (selection.gains[10:] == 0).all()
    assert (np.diff(selection.indices[10:]) > 0).all()
