"""Log det of pooled features: against its definition, and what it does to them first."""

from __future__ import annotations

import numpy as np
import pytest

from aliquot.scoring.features import gaussian_projection
from aliquot.selection.strategies.log_det import LogDet
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, Selection
from extreme_pools import EXTREME


def select(strategy: LogDet, x: np.ndarray, k: int) -> Selection:
    n = len(x)
    pool = Pool("test", [str(i) for i in range(n)], ["x"] * n)
    return rank(strategy, pool, Scores(x.astype(np.float32), np.ones(n, dtype=np.int64)), k)


def brute_force(x: np.ndarray, sigma: float, k: int) -> tuple[list[int], list[float]]:
    """Greedy on log det(I + K_S), K the linear kernel in units of sigma: what a DPP is asked for."""
    x = x.astype(np.float32).astype(np.float64)
    kernel, chosen, values = x @ x.T / sigma**2, [], [0.0]
    while len(chosen) < k:
        every = np.full(len(x), -np.inf)
        for row in set(range(len(x))) - set(chosen):
            those = [*chosen, row]
            every[row] = np.linalg.slogdet(np.eye(len(those)) + kernel[np.ix_(those, those)])[1]
        chosen.append(int(every.argmax()))
        values.append(float(every.max()))
    return chosen, np.diff(values).tolist()


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("d", [3, 60])
def test_equals_brute_force(sigma: float, d: int) -> None:
    x = np.random.default_rng(d).normal(size=(40, d))
    picks, gains = brute_force(x, sigma, 40)
    found = select(LogDet(sigma, "absolute"), x, 40)
    assert found.indices.tolist() == picks
    np.testing.assert_allclose(found.gains, gains, rtol=1e-6, atol=1e-10)


def test_sigma_is_in_units_of_the_typical_length() -> None:
    x = np.random.default_rng(0).normal(size=(40, 5))
    typical = float(np.sqrt(np.square(x).sum(axis=1).mean()))
    one, two = select(LogDet(0.5), x, 40), select(LogDet(0.5 * typical, "absolute"), x, 40)
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_allclose(one.gains, two.gains, rtol=1e-6)


def test_normalized_looks_at_directions_only() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    scaled = x * 2.0 ** rng.integers(-9, 9, size=(40, 1))
    x[[4, 9]] = scaled[[4, 9]] = 0
    one, two = (select(LogDet(normalize=True), features, 40) for features in (x, scaled))
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_allclose(one.gains, two.gains, rtol=1e-12)
    assert one.indices[0] == 0  # all directions are worth the same
    assert one.gains[0] == pytest.approx(np.log(2))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9)
    assert one.gains.sum() == pytest.approx(np.linalg.slogdet(np.eye(5) + unit.T @ unit)[1], rel=1e-5)
    assert one.indices[38:].tolist() == [4, 9]
    assert one.gains[38:].tolist() == [0, 0]


@pytest.mark.parametrize("sigma", [0.1, 1.0, 30.0])
def test_of_directions_that_are_worth_the_same_the_lower_row_comes_first(sigma: float) -> None:
    """Scaled to length 1 in float32, some vectors would come out longer than others."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 20)) * 10.0 ** rng.uniform(-3, 3, size=(3000, 1))
    found = select(LogDet(sigma, normalize=True), x, 1)
    assert found.indices.tolist() == [0]
    assert found.gains[0] == pytest.approx(np.log1p(1 / sigma**2), rel=1e-12)


def test_wide_features_are_projected_and_others_are_not() -> None:
    x = np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32)
    by_hand = select(LogDet(projection=None), x @ gaussian_projection(50, 8, 3), 30)
    found = select(LogDet(projection=8, projection_seed=3), x, 30)
    np.testing.assert_array_equal(found.indices, by_hand.indices)
    np.testing.assert_array_equal(
        select(LogDet(projection=50), x, 30).gains, select(LogDet(projection=None), x, 30).gains
    )


def test_near_copies_are_left_for_last() -> None:
    rng = np.random.default_rng(0)
    directions = np.eye(10)[rng.permutation(10)]
    x = np.vstack([directions, directions + 1e-3 * rng.normal(size=(10, 10))])
    assert len(set((select(LogDet(0.1), x, 10).indices % 10).tolist())) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": -1.0}, r"sigma -1\.0 .* positive"),
        ({"unit": "median"}, "unit 'median'"),
        ({"projection": 0}, "projection 0 .* null for none"),
        ({"projection_seed": -1}, "projection_seed -1"),
    ],
)
def test_bad_options_are_refused_when_they_are_given(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogDet(**options)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.parametrize("pool", [name for name in EXTREME if "1e+07" not in name and "1e+09" not in name])
@pytest.mark.parametrize("normalize", [False, True])
def test_every_pick_gains_most_however_extreme_the_features(pool: str, normalize: bool) -> None:
    x = EXTREME[pool].astype(np.float64)
    picks = select(LogDet(normalize=normalize), EXTREME[pool], 20).indices
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    y = x / (norms if normalize else np.sqrt(np.square(norms).mean()))
    information = np.eye(y.shape[1])
    for turn, pick in enumerate(picks):
        gains = np.log1p(np.einsum("nd,nd->n", y @ np.linalg.inv(information), y))
        gains[picks[:turn]] = 0
        assert gains[pick] >= gains.max() * (1 - 1e-5)
        information += np.outer(y[pick], y[pick])


def test_a_vector_beside_which_no_other_tells_anything_is_reported() -> None:
    with pytest.warns(UserWarning, match="after 1 picks: no gain exceeds"):
        select(LogDet(), EXTREME["a row of 1e+09"], 20)
