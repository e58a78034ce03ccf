"""The modes of facility location against the exact one, against brute force, and on awkward pools."""

from __future__ import annotations

import importlib.util
import math
import re

import numpy as np
import pytest
from small_pools import greedy_gap, matrix, mixture, naive_greedy

from aliquot.selection.greedy import stochastic
from aliquot.selection.greedy.approximation import describe, mean_cover
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.greedy.distributed import greedy_in_part
from aliquot.selection.greedy.modes import Distributed, Exact, Mode, Sparse, Stochastic
from aliquot.selection.kernels import RBF, Cosine, Kernel
from aliquot.types import Selection

NONE = Selection.none()
MODES = [Exact(), Sparse(16), Sparse(16, "approximate"), Stochastic(0.05), Distributed(5, seed=3)]
APPROXIMATE = MODES[1:]
each_mode = pytest.mark.parametrize("mode", MODES, ids=str)


def maximize(mode: Mode, x: np.ndarray, k: int, kernel: Kernel | None = None, start: Selection = NONE) -> Selection:
    return mode.maximize((kernel or RBF()).embed(x), start, k, Workspace())


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode",
    [
        Sparse(10**6),
        Sparse(300, "approximate"),
        Stochastic(math.exp(-60)),  # samples of all prompts
        Distributed(1),
        Distributed(6),  # parts of 50 prompts, of which none is left out
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel", [RBF(0.05), RBF(0.25), Cosine()], ids=str)
def test_a_mode_that_leaves_nothing_out_makes_the_picks_of_exact_greedy(mode: Mode, kernel: Kernel) -> None:
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    found, expected = maximize(mode, x, 60, kernel), maximize(Exact(), x, 60, kernel)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.gains, expected.gains, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("mode", APPROXIMATE, ids=str)
def test_an_approximate_mode_recovers_most_of_what_greedy_gains_over_random(mode: Mode) -> None:
    x = mixture(1500, d=16, seed=1)
    w = matrix(RBF().embed(x))
    f = [w[:, rows].max(axis=1).sum() for rows in (maximize(mode, x, 300).indices, naive_greedy(w, 300)[0])]
    random = w[:, np.random.default_rng(0).permutation(1500)[:300]].max(axis=1).sum()
    assert 0.75 < (f[0] - random) / (f[1] - random) < 1.001


@pytest.mark.slow
@each_mode
@pytest.mark.parametrize("kernel", [RBF(), RBF(1e-6), RBF(1e6), Cosine()], ids=str)
def test_ranks_awkward_pools_to_the_end(mode: Mode, kernel: Kernel) -> None:
    distinct = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    pools = {
        "one": distinct[:1],
        "duplicates": np.tile(distinct, (4, 1)),
        "constant": np.full((40, 4), 3, dtype=np.float32),
        "zeros": np.vstack([np.zeros((5, 4), dtype=np.float32), distinct]),
    }
    for name, x in pools.items():
        selection = maximize(mode, x, len(x), kernel)
        assert sorted(selection.indices) == list(range(len(x))), name
        assert np.isfinite(selection.gains).all(), name
        assert (selection.gains >= 0).all(), name


@pytest.mark.slow
@each_mode
@pytest.mark.parametrize("depth", [1, 7, 59])
def test_going_on_from_its_own_prefix_is_ranking_at_once(mode: Mode, depth: int) -> None:
    at_once = maximize(mode, mixture(250), 60)
    extended = maximize(mode, mixture(250), 60, start=at_once.head(depth))
    np.testing.assert_array_equal(extended.indices, at_once.indices)
    np.testing.assert_array_equal(extended.gains, at_once.gains)


@pytest.mark.parametrize("mode", [Stochastic(0.5), Distributed(3)], ids=str)
def test_goes_on_to_the_end_from_what_somebody_else_chose(mode: Mode) -> None:
    start = Selection(np.arange(59, 9, -1), np.zeros(50))
    selection = maximize(mode, mixture(60), 60, start=start)
    np.testing.assert_array_equal(selection.indices[:50], start.indices)
    assert sorted(selection.indices) == list(range(60))


def test_gains_of_stochastic_and_distributed_are_those_in_f() -> None:
    x = mixture(200)
    w = matrix(RBF().embed(x))
    for mode in (Stochastic(0.1), Distributed(3)):
        selection, cover = maximize(mode, x, 80), np.zeros(200)
        for row, gain in zip(selection.indices, selection.gains, strict=True):
            assert gain == pytest.approx(np.maximum(w[:, row] - cover, 0).sum(), abs=1e-3)
            cover = np.maximum(cover, w[:, row])


def test_stochastic_takes_the_best_of_samples_of_n_over_k_times_log_1_over_eps(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[np.ndarray] = []

    def seen(self: object, batch: list[np.ndarray]) -> None:
        samples.extend(batch)
        pick(self, batch)

    pick = stochastic._Stochastic._pick
    monkeypatch.setattr(stochastic._Stochastic, "_pick", seen)
    x = mixture(200)
    w, selection = matrix(RBF().embed(x)), maximize(Stochastic(0.1), x, 150)
    cover = np.zeros(200)
    assert len(samples) == 150
    for turn, (sample, row) in enumerate(zip(samples, selection.indices, strict=True)):
        assert len(set(sample.tolist())) == min(math.ceil(200 / 150 * math.log(10)), 200 - turn)
        assert not np.isin(sample, selection.indices[:turn]).any()
        gains = np.maximum(w[:, sample] - cover[:, None], 0).sum(axis=0)
        assert gains[sample == row] >= gains.max() - 1e-4
        cover = np.maximum(cover, w[:, row])


@pytest.mark.slow
def test_the_size_of_products_changes_no_pick_of_stochastic(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = maximize(Stochastic(), mixture(300), 100)
    monkeypatch.setattr(stochastic, "_UNIT", 8)
    monkeypatch.setattr(stochastic, "_WIDTH", 64)
    found = maximize(Stochastic(), mixture(300), 100)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.gains, expected.gains)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Stochastic, Distributed])
def test_another_seed_chooses_otherwise(mode: type[Stochastic | Distributed]) -> None:
    one, two = (maximize(mode(seed=seed), mixture(300), 50).indices for seed in (0, 1))
    assert set(one.tolist()) != set(two.tolist())


def test_parts_share_out_the_pool_evenly() -> None:
    for n, parts in ((100, 7), (3, 5), (1, 1)):
        rows = [Distributed(parts).rows_of(part, n) for part in range(parts)]
        np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(n))
        assert max(map(len, rows)) - min(map(len, rows)) <= 1


@pytest.mark.slow
def test_distributed_picks_the_best_of_what_greedy_picks_in_each_part() -> None:
    embedding, mode = RBF().embed(mixture(300)), Distributed(3, seed=1)
    w = matrix(embedding)
    selection = mode.maximize(embedding, NONE, 30, Workspace())
    parts = [greedy_in_part(embedding, mode.rows_of(part, 300), 30, Workspace()).indices for part in range(3)]
    for part, chosen in enumerate(parts):
        rows = mode.rows_of(part, 300)
        assert greedy_gap(w[np.ix_(rows, rows)], np.searchsorted(rows, chosen)) < 1e-6
    candidates = np.concatenate(parts)
    assert len(candidates) == 90 and np.isin(selection.indices, candidates).all()
    assert greedy_gap(w[:, candidates], [int(np.flatnonzero(candidates == row)[0]) for row in selection.indices]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [RBF(), Cosine()], ids=str)
def test_the_reported_objective_is_that_of_the_full_matrix(kernel: Kernel) -> None:
    x = mixture(2500)
    embedding = kernel.embed(x)
    rows, chosen = np.arange(100, 2500), np.random.default_rng(0).permutation(2500)[:1100]
    expected = matrix(embedding)[np.ix_(rows, chosen)].max(axis=1).mean()
    assert mean_cover(embedding, rows, chosen) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_the_report_says_what_is_reached_and_recovered() -> None:
    x = mixture(400)
    embedding, selection = RBF().embed(x), maximize(Sparse(4), x, 40)
    found = re.search(r"f = ([\d.]+) of at most 400\. .* reaches ([\d.]+) .* recovers ([\d.]+) ",
                      describe(Sparse(4), embedding, selection, "cpu"))  # fmt: skip
    assert found is not None
    f, ratio, recovered = map(float, found.groups())
    w = matrix(embedding)
    exact = w[:, naive_greedy(w, 40)[0]].max(axis=1).sum()
    random = w[:, np.random.default_rng(0).permutation(400)[:40]].max(axis=1).sum()
    assert f == pytest.approx(w[:, selection.indices].max(axis=1).sum(), abs=0.01)
    assert ratio == pytest.approx(f / exact, abs=1e-4)
    assert recovered == pytest.approx((f - random) / (exact - random), abs=1e-3)


def test_too_few_neighbors_and_too_small_parts_are_objected_to_with_the_remedy() -> None:
    assert "m=64 neighbors are too few" in str(Sparse(64).objection(99_000, 1_000))
    assert "m=594 or more" in str(Sparse(64).objection(99_000, 1_000))
    assert Sparse(594).objection(99_000, 1_000) is None
    assert Sparse(64).objection(50, 1) is None
    assert "strategy/mode=exact" in str(Distributed(4).objection(99_000, 45_000))
    assert Distributed(4).objection(99_000, 10_000) is None
    assert Exact().objection(9, 1) is None and Stochastic().objection(9, 1) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sparse(0), "m=0 keeps no neighbor"),
        (lambda: Sparse(8, "some"), "neighbors 'some' is unknown; use exact or approximate"),
        (lambda: Stochastic(0.0), r"eps=0.0 is outside \(0, 1\)"),
        (lambda: Stochastic(1.0), r"eps=1.0 is outside \(0, 1\)"),
        (lambda: Stochastic(seed=-1), "seed -1 is negative"),
        (lambda: Distributed(0), "parts=0"),
    ],
)
def test_bad_values_are_refused_with_the_remedy(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_approximate_neighbors_without_faiss_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'aliquot\[ann\]'"):
        Sparse(neighbors="approximate")
    assert Sparse().neighbors == "exact"
