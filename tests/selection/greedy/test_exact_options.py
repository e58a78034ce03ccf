"""Exact facility location with weights, with few candidates, from a start, and after it was killed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from aliquot.selection.greedy import bounds
from aliquot.selection.greedy import facility_location as submodular
from aliquot.selection.greedy import passes as products
from aliquot.selection.greedy.certificate import objective
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.facility_location import facility_location
from aliquot.selection.kernels import RBF, Cosine, Embedding
from aliquot.types import Selection

N = 300
START = Selection(np.array([250, 3, 21]), np.array([9.0, 8.0, 7.0]))
CANDIDATES = np.random.default_rng(5).permutation(N)[:170]
WEIGHTS = np.random.default_rng(6).gamma(0.3, size=N).astype(np.float32)
WEIGHTS[:9] = 0


def embed(kernel: RBF | Cosine) -> Embedding:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(15, 8))[rng.integers(15, size=N)] + 0.4 * rng.normal(size=(N, 8))
    return kernel.embed(x.astype(np.float32))


def matrix(embedding: Embedding) -> np.ndarray:
    return embedding.similarity(np.repeat(np.arange(N), N), np.tile(np.arange(N), N)).reshape(N, N)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [RBF(), RBF(0.02), Cosine()], ids=str)
@pytest.mark.parametrize("start", [None, START], ids=["", "start"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
@pytest.mark.parametrize("candidates", [None, CANDIDATES, CANDIDATES[:70]], ids=["", "candidates", "few"])
def test_every_pick_is_the_best_that_is_left(
    kernel: RBF | Cosine, start: Selection | None, weights: np.ndarray | None, candidates: np.ndarray | None
) -> None:
    embedding = embed(kernel)
    w, a = matrix(embedding), np.ones(N) if weights is None else weights.astype(np.float64)
    selection = facility_location(
        embedding, 60, start=start, weights=weights, candidates=candidates, cache_entries=4000
    )
    given = 0 if start is None else len(start)
    if start is not None:
        np.testing.assert_array_equal(selection.indices[:given], start.indices)
        np.testing.assert_array_equal(selection.gains[:given], start.gains)
    allowed = np.isin(np.arange(N), np.arange(N) if candidates is None else candidates)
    assert allowed[selection.indices[given:]].all()
    cover = np.zeros(N)
    for turn, row in enumerate(selection.indices):
        gains = np.where(allowed, a @ np.maximum(w - cover[:, None], 0), 0)
        if turn >= given:
            assert gains[row] >= gains.max() - 1e-5 * a.mean()
            assert selection.gains[turn] == pytest.approx(gains[row], rel=1e-4, abs=1e-5)
        cover = np.maximum(cover, w[:, row])
        allowed[row] = False
    assert objective(embedding, selection.indices, weights) == pytest.approx(a @ cover, rel=1e-6)


def test_equal_weights_change_no_pick() -> None:
    embedding = embed(RBF())
    plain = facility_location(embedding, 100)
    weighted = facility_location(embedding, 100, weights=np.full(N, 0.5, dtype=np.float32))
    np.testing.assert_array_equal(weighted.indices, plain.indices)
    np.testing.assert_allclose(weighted.gains, plain.gains / 2, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
@pytest.mark.parametrize("d", [3, 128, 200])
def test_going_on_from_a_prefix_gives_the_ranking_at_once(weights: np.ndarray | None, d: int) -> None:
    x = np.random.default_rng(1).normal(size=(N, d)).astype(np.float32)
    x[200:] = x[:100]
    embedding = RBF().embed(x)
    at_once = facility_location(embedding, N, weights=weights)
    for depth in (1, 2, 99, 180, N - 1):
        extended = facility_location(embedding, N, start=at_once.head(depth), weights=weights)
        np.testing.assert_array_equal(extended.indices, at_once.indices)
        np.testing.assert_array_equal(extended.gains, at_once.gains)


def test_a_start_longer_than_the_budget_is_cut() -> None:
    np.testing.assert_array_equal(facility_location(embed(RBF()), 2, start=START).indices, START.indices[:2])


def test_too_few_candidates_are_named() -> None:
    with pytest.raises(ValueError, match=r"budget 20 .* 10 candidates"):
        facility_location(embed(RBF()), 20, candidates=np.arange(10))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 0.0])
def test_weights_that_weigh_nothing_are_refused(bad: float) -> None:
    weights = np.full(N, bad, dtype=np.float32)
    with pytest.raises(ValueError, match="weights"):
        facility_location(embed(RBF()), 20, weights=weights)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
def test_a_wrong_guess_of_the_first_pick_changes_nothing(
    weights: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = embed(RBF())
    expected = facility_location(embedding, 200, weights=weights)
    monkeypatch.setattr(bounds, "_SAMPLE", 1)
    monkeypatch.setattr(bounds, "UNIT", 2)  # the two rows nearest to the first row of the pool
    selection = facility_location(embedding, 200, weights=weights)
    np.testing.assert_array_equal(selection.indices, expected.indices)
    np.testing.assert_array_equal(selection.gains, expected.gains)


class Killed(Exception):
    """Stands for the signal."""


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Save at every chance, and be killed after the first saves of each kind; returns what was under way."""
    deaths: list[str] = []
    save = Checkpoint.save

    def save_and_be_killed(self: Checkpoint, arrays: Mapping[str, np.ndarray]) -> None:
        save(self, arrays)
        if self._path is None:
            return
        picked, summed = len(arrays["gains"]), arrays["counts"][0]
        kind = "bounds" if summed < N else "start" if picked < 80 else "lists" if len(arrays["list_rows"]) else "picks"
        if deaths.count(kind) < 2:
            deaths.append(kind)
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", save_and_be_killed)
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    return deaths


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
@pytest.mark.parametrize("cache_entries", [None, 2000, 0])
@pytest.mark.parametrize("given", [0, 80])
def test_goes_on_bit_for_bit_where_it_was_killed(
    weights: np.ndarray | None,
    cache_entries: int | None,
    given: int,
    tmp_path: Path,
    deaths: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedding = embed(RBF())
    expected = facility_location(embedding, 250, weights=weights)
    for name, size in {"_COVERED": 30, "_PATIENCE": 3000, "UNIT": 64}.items():
        monkeypatch.setattr(submodular, name, size)
    for module in (bounds, products):
        monkeypatch.setattr(module, "STRIP", 64)
    monkeypatch.setattr(products, "WIDTH", 64)
    for _ in range(20):
        try:
            selection = facility_location(
                embedding, 250, start=expected.head(given), weights=weights, cache_entries=cache_entries,
                workspace=Workspace(tmp_path),
            )  # fmt: skip
            break
        except Killed:
            continue
    np.testing.assert_array_equal(selection.indices, expected.indices)
    np.testing.assert_array_equal(selection.gains, expected.gains)
    assert ("start" if given else "bounds") in deaths and ("lists" in deaths or cache_entries == 0), deaths


@pytest.mark.slow
def test_what_another_task_saved_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    embedding, workspace = embed(RBF()), Workspace(tmp_path)
    for options in ({}, {"start": START}, {}, {"weights": WEIGHTS}, {"candidates": CANDIDATES}, {}):
        expected = facility_location(embedding, 100, **options)
        selection = facility_location(embedding, 100, workspace=workspace, **options)
        np.testing.assert_array_equal(selection.indices, expected.indices)
        np.testing.assert_array_equal(selection.gains, expected.gains)
    other = facility_location(embed(Cosine()), 100)
    np.testing.assert_array_equal(facility_location(embed(Cosine()), 100, workspace=workspace).indices, other.indices)


@pytest.mark.slow
@pytest.mark.parametrize("k", [30, 100, 200])
def test_a_kill_at_another_budget_is_taken_up(k: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = embed(RBF())
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    facility_location(embedding, 100, workspace=Workspace(tmp_path))
    selection = facility_location(embedding, k, workspace=Workspace(tmp_path))
    np.testing.assert_array_equal(selection.indices, facility_location(embedding, k).indices)
