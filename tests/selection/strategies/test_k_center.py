"""Farthest-first against the loop that computes every distance anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_facility_location import Given, Listed

from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.spec import Scorer
from aliquot.selection.strategies.k_center import KCenter
from aliquot.selection.strategy import check_requirements, rank
from aliquot.stages import Select
from aliquot.store.store import Store
from aliquot.types import Pool, Scores, Selection
from extreme_pools import EXTREME, squared_distances


def brute_force(points: np.ndarray, first: int, k: int) -> tuple[list[int], list[float]]:
    points = points.astype(np.float64)
    chosen, gains = [first], [float(np.linalg.norm(points - points[first], axis=1).max())]
    while len(chosen) < k:
        nearest = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(axis=1)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
        gains.append(float(nearest.max()))
    return chosen, gains


def pool_of(x: np.ndarray) -> tuple[Pool, Scores]:
    n = len(x)
    pool = Pool("test", [str(i) for i in range(n)], ["x"] * n)
    return pool, Scores(x.astype(np.float32), np.ones(n, dtype=np.int64))


def select(strategy: KCenter, x: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
    selection = rank(strategy, *pool_of(x), k)
    return selection.indices.tolist(), selection.gains


@pytest.mark.parametrize("n", [2, 40, 130])
def test_equals_brute_force(n: int) -> None:
    x = np.random.default_rng(n).normal(size=(n, 5))
    chosen, gains = brute_force(x.astype(np.float32), 1, n)
    found, found_gains = select(KCenter(first=1), x, n)
    assert found == chosen
    np.testing.assert_allclose(found_gains, gains, rtol=1e-12)


def test_goes_on_from_what_anybody_chose() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    pool, scores = pool_of(x)
    start = Selection(np.array([9, 3, 50]), np.array([7.0, 8.0, 1.0]))
    selection = rank(KCenter(), pool, scores, 20, start)
    nearest = np.linalg.norm(x[:, None].astype(np.float64) - x[start.indices][None], axis=2).min(axis=1)
    assert selection.indices[:3].tolist() == [9, 3, 50] and selection.gains[:3].tolist() == [7.0, 8.0, 1.0]
    assert selection.indices[3] == nearest.argmax() and selection.gains[3] == pytest.approx(nearest.max(), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_going_on_from_its_own_picks_gives_what_it_would_have_picked_at_once(metric: str) -> None:
    pool, scores = pool_of(np.random.default_rng(0).normal(size=(300, 4)))
    strategy = KCenter(metric, first="random", seed=3)
    whole = rank(strategy, pool, scores, 200)
    for done in (1, 90):
        again = rank(strategy, pool, scores, 200, whole.head(done))
        np.testing.assert_array_equal(again.indices, whole.indices)
        np.testing.assert_array_equal(again.gains, whole.gains)


def test_a_finished_stage_keeps_what_a_deeper_budget_goes_on_from_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    shallow, deep = (
        Select(Listed(200), KCenter(), Given(200), budget, TrainerSpec("cpu"))  # pyright: ignore
        for budget in (40, 120)
    )
    store.ensure(shallow)
    folder = store.directory(shallow) / "ranking"
    assert [path.name for path in folder.iterdir()] == ["kept.npz"]
    found, expected = store.get(deep), rank(KCenter(), Listed(200).load(tmp_path), Given(200).load(tmp_path), 120)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.gains, expected.gains)
    with np.load(folder / "kept.npz") as kept:
        assert len(kept["indices"]) == 120


def test_rows_of_the_pool_are_not_confused_with_positions_among_the_rest() -> None:
    """A well-known program picks 10.1 and then 10.0 here, where 5.0 is farther from all it has."""
    x = np.array([[0.0], [10.0], [10.1], [5.0]])
    assert select(KCenter(first=0), x, 3)[0] == [0, 2, 3]


def test_gains_are_the_covering_radius_before_each_pick_and_never_rise() -> None:
    x = np.random.default_rng(3).normal(size=(200, 4))
    chosen, gains = select(KCenter(), x, 200)
    assert (np.diff(gains) <= 1e-6).all()
    nearest = np.linalg.norm(x[:, None] - x[chosen[:50]][None], axis=2).min(axis=1)
    assert nearest.max() == pytest.approx(gains[50], rel=1e-4)


def test_cosine_looks_at_directions_only() -> None:
    x = np.random.default_rng(0).normal(size=(60, 5))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    scaled = x * np.random.default_rng(1).uniform(0.1, 9, size=(60, 1))
    chosen, gains = select(KCenter(metric="cosine", first=0), scaled, 60)
    assert chosen == brute_force(unit, 0, 60)[0]
    assert gains[1] == pytest.approx(1 - (unit @ unit[0]).min(), rel=1e-4)


@pytest.mark.slow
def test_a_zero_vector_is_at_cosine_distance_one_from_all_others() -> None:
    x = np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 0.1], [0.0, 0.0]])
    chosen, gains = select(KCenter(metric="cosine", first=0), x, 4)
    assert chosen[1] == 1
    assert gains[1] == pytest.approx(1.0, rel=1e-5)
    assert gains[3] == 0.0


def test_duplicates_and_constant_features_work() -> None:
    assert select(KCenter(first=0), np.full((5, 3), 2.5), 5)[0] == [0, 1, 2, 3, 4]
    x = np.tile(np.random.default_rng(0).normal(size=(10, 3)), (3, 1))
    chosen, gains = select(KCenter(), x, 30)
    assert sorted(row % 10 for row in chosen[:10]) == list(range(10))
    assert (gains[10:] == 0).all()


def test_the_first_pick_is_what_was_asked_for() -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    x[17] = x.mean(axis=0)
    assert select(KCenter(first="medoid"), x, 1)[0] == [17]
    assert select(KCenter(first=4), x, 1)[0] == [4]
    drawn = {select(KCenter(first="random", seed=seed), x, 1)[0][0] for seed in range(20)}
    assert len(drawn) > 5


@pytest.mark.parametrize("bad", [{"metric": "manhattan"}, {"first": "last"}])
def test_unknown_names_are_refused_with_the_valid_ones(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"use (euclidean|medoid)"):
        KCenter(**bad)


@pytest.mark.parametrize("first", [3, -1])
def test_a_first_row_outside_the_pool_is_refused_before_the_scoring_pass(first: int) -> None:
    pool, _ = pool_of(np.eye(3))
    with pytest.raises(ValueError, match=rf"strategy.first={first} is outside 0\.\.2, the rows of pool 'test'"):
        check_requirements(KCenter(first=first), pool, Scorer())
    with pytest.raises(ValueError, match=r"outside 0\.\.2"):
        select(KCenter(first=first), np.eye(3), 1)
    for valid in (0, 2, "medoid", "random"):
        check_requirements(KCenter(first=valid), pool, Scorer())


@pytest.mark.parametrize("pool", EXTREME)
def test_picks_and_gains_are_those_of_float64_however_extreme_the_features(pool: str) -> None:
    x = EXTREME[pool]
    exact = x.astype(np.float64)
    medoid = int(np.square(exact - exact.mean(axis=0)).sum(axis=1).argmin())
    distances = np.sqrt(squared_distances(x))
    chosen, gains = [medoid], [distances[medoid].max()]
    for _ in range(60):
        nearest = distances[chosen].min(axis=0)
        chosen.append(int(nearest.argmax()))
        gains.append(nearest.max())
    found, found_gains = select(KCenter(), x, 61)
    assert found == chosen
    np.testing.assert_allclose(found_gains, gains, rtol=1e-12)


def test_cosine_tells_nearly_equal_directions_apart() -> None:
    rng = np.random.default_rng(0)
    x = (np.ones(16) + 1e-4 * rng.normal(size=(300, 16))).astype(np.float32)
    x[7] *= np.float32(1e-38)  # the length of a row does not matter, even where float32 holds two digits of it
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    chosen, gains = brute_force(unit, 5, 100)
    found, found_gains = select(KCenter("cosine", first=5), x, 100)
    assert found == chosen
    np.testing.assert_allclose(found_gains, np.square(gains) / 2, rtol=1e-9)
