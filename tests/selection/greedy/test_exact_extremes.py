"""Facility location is greedy on the features themselves, however hard these are for float32."""

from __future__ import annotations

import numpy as np
import pytest

from aliquot.selection.greedy import facility_location as submodular
from aliquot.selection.greedy import islands
from aliquot.selection.greedy import passes_torch as device
from aliquot.selection.greedy.approximation import mean_cover
from aliquot.selection.greedy.certificate import certificate, objective
from aliquot.selection.greedy.checkpoint import Workspace, digest
from aliquot.selection.greedy.facility_location import facility_location
from aliquot.selection.greedy.modes import Distributed, Mode, Sparse, Stochastic
from aliquot.selection.greedy.neighbors import device_search, nearest, tile_search
from aliquot.selection.kernels import RBF, Cosine
from aliquot.types import Selection
from extreme_pools import EXTREME, cosine, rbf, worst_loss

_K = 25
MODES = [Sparse(m=10**6), Stochastic(eps=1e-300), Distributed(parts=1)]  # in settings that leave nothing out


@pytest.fixture(params=EXTREME, ids=lambda name: name.replace(" ", "-"))
def pool(request: pytest.FixtureRequest) -> np.ndarray:
    return EXTREME[request.param]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_every_pick_gains_most_in_float64(pool: np.ndarray, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "torch":
        monkeypatch.setattr(submodular, "passes_on", lambda _, e, workers: device.DevicePasses(e, "cpu"))
    w, embedding = rbf(pool, 0.25), RBF().embed(pool)
    chosen = facility_location(embedding, _K)
    assert worst_loss(w, chosen.indices) < 1e-5
    f = w[:, chosen.indices].max(axis=1).sum()
    assert chosen.gains.sum() == pytest.approx(f, rel=1e-5)
    assert objective(embedding, chosen.indices) == pytest.approx(f, rel=1e-7)
    assert certificate(embedding, chosen, num_turns=_K) < 1e-5
    extended = facility_location(embedding, _K, start=chosen.head(9))
    np.testing.assert_array_equal(extended.indices, chosen.indices)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: type(mode).__name__)
def test_modes_that_leave_nothing_out_are_greedy_too(pool: np.ndarray, mode: Mode) -> None:
    chosen = mode.maximize(RBF().embed(pool), Selection.none(), _K, Workspace())
    assert worst_loss(rbf(pool, 0.25), chosen.indices) < 1e-5


@pytest.mark.slow
def test_the_certificate_and_f_see_a_wrong_pick_though_products_do_not(pool: np.ndarray) -> None:
    w, embedding = rbf(pool, 0.25), RBF().embed(pool)
    wrong = np.arange(_K)
    loss = certificate(embedding, Selection(wrong, np.zeros(_K)), num_turns=_K)
    assert loss > 1e-3
    assert mean_cover(embedding, np.arange(len(w)), wrong) == pytest.approx(w[:, wrong].max(axis=1).mean(), rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["tiles", "device", "cells"])
def test_similarities_with_neighbors_are_those_of_the_features(pool: np.ndarray, search: str) -> None:
    w, embedding, rows = rbf(pool, 0.25), RBF().embed(pool), np.arange(len(pool))
    if search == "cells":
        pytest.importorskip("faiss")
        found = nearest(embedding, 8, True, Workspace())
    else:
        found = (tile_search(embedding, 8) if search == "tiles" else device_search(embedding, 8, "cpu"))(rows)
    similar = np.where(found.quanta > 0, w[rows[:, None], found.rows], 0)
    np.testing.assert_allclose(found.quanta / 2.0**30, similar, atol=3e-5)
    if search != "cells":
        highest = -np.sort(-w, axis=1)[:, :8]
        np.testing.assert_allclose(found.quanta / 2.0**30, highest, atol=3e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-2, 1e-4])
def test_cosines_of_nearly_equal_directions_are_told_apart(scale: float) -> None:
    rng = np.random.default_rng(0)
    x = np.ones(16) + scale * rng.normal(size=(400, 16))
    x[:80] = rng.normal(size=(80, 16))
    embedding = Cosine().embed(x.astype(np.float32))
    chosen = facility_location(embedding, _K)
    assert worst_loss(cosine(x.astype(np.float32)), chosen.indices) < 1e-5
    assert certificate(embedding, chosen, num_turns=_K) < 1e-5


@pytest.mark.slow
def test_equal_rows_far_out_tie_exactly() -> None:
    x = EXTREME["5 % far out together"]
    chosen = facility_location(RBF().embed(np.vstack([x, x])), 2 * len(x))
    assert (np.argsort(chosen.indices)[: len(x)] < np.argsort(chosen.indices)[len(x) :]).all()


def test_one_far_row_changes_none_of_the_other_picks() -> None:
    x = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)
    plain = facility_location(RBF().embed(x), 100).indices
    far = x.copy()
    far[599] = 1e9  # among the last picks: it is similar to nothing but itself
    assert 599 not in plain
    with_far = facility_location(RBF().embed(far), 100).indices
    assert len(np.intersect1d(plain, with_far)) >= 99


def test_the_task_of_a_checkpoint_holds_the_features() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    embedding, other = RBF().embed(x), RBF().embed(x.copy())
    assert digest(embedding) == digest(other)
    other.exact.features[3, 2] += 1
    assert digest(embedding) != digest(other)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_islands_are_ranked_as_one_pool_is(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3, 8))[rng.integers(3, size=400)] + 1e-4 * rng.normal(size=(400, 8))).astype(np.float32)
    x[300:330] = x[:30]
    embedding = RBF(5e-9, "absolute").embed(x)
    assert len(islands.islands(embedding)) == 3
    options = {"weights": rng.random(400).astype(np.float32) if weighted else None, "candidates": np.arange(0, 390)}
    start = Selection(np.array([399, 7, 3]), np.zeros(3))
    found = facility_location(embedding, 300, start=start, **options)
    monkeypatch.setattr(submodular, "islands", lambda _: [])
    expected = facility_location(embedding, 300, start=start, **options)
    np.testing.assert_allclose(found.gains, expected.gains, atol=1e-5)
    assert (found.indices == expected.indices)[:50].all()
    assert objective(embedding, found.indices) == pytest.approx(objective(embedding, expected.indices), rel=1e-6)
