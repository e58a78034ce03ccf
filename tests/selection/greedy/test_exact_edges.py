"""Exact facility location beside its peers, and on pools at the edge of what makes sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aliquot.selection.greedy.certificate import certificate, objective
from aliquot.selection.greedy.facility_location import facility_location
from aliquot.selection.kernels import RBF, Cosine, Embedding

KERNELS = [RBF(0.25), RBF(0.02), RBF(1e-6), RBF(1e6), Cosine()]


def features(n: int, d: int = 8) -> np.ndarray:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(max(2, n // 25), d))[rng.integers(max(2, n // 25), size=n)] + 0.4 * rng.normal(size=(n, d))
    return x.astype(np.float32)


def matrix(embedding: Embedding) -> np.ndarray:
    n = len(embedding)
    return embedding.similarity(np.repeat(np.arange(n), n), np.tile(np.arange(n), n)).reshape(n, n)


def assert_same_up_to_ties(embedding: Embedding, ours: np.ndarray, theirs: np.ndarray) -> None:
    """The same rows, until one turn where rows gain equally much; after it, both are greedy on their own way."""
    w = matrix(embedding)
    f_ours, f_theirs = (np.maximum.accumulate(w[:, rows], axis=1).sum(axis=0) for rows in (ours, theirs))
    same = int(np.argmin(np.append(ours == theirs, False)))
    assert same > 30
    np.testing.assert_allclose(f_ours[: same + 1], f_theirs[: same + 1], rtol=1e-7)
    np.testing.assert_allclose(f_ours, f_theirs, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [RBF(), RBF(0.05), Cosine()], ids=str)
def test_agrees_with_apricot(kernel: RBF | Cosine) -> None:
    apricot = pytest.importorskip("apricot")
    embedding = kernel.embed(features(400))
    selector = apricot.FacilityLocationSelection(150, metric="precomputed", optimizer="lazy")
    theirs = np.asarray(selector.fit(matrix(embedding)).ranking)
    assert_same_up_to_ties(embedding, facility_location(embedding, 150).indices, theirs)


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
@pytest.mark.parametrize("kernel", [RBF(), RBF(0.05), Cosine()], ids=str)
def test_agrees_with_submodlib(kernel: RBF | Cosine) -> None:
    submodlib = pytest.importorskip("submodlib")
    embedding = kernel.embed(features(400))
    function = submodlib.FacilityLocationFunction(
        n=400, mode="dense", sijs=matrix(embedding).astype(np.float32), separate_rep=False
    )
    picks = function.maximize(150, optimizer="LazyGreedy", stopIfZeroGain=False, show_progress=False)
    assert_same_up_to_ties(embedding, facility_location(embedding, 150).indices, np.array([row for row, _ in picks]))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("n", [1, 2, 50, 513])
def test_a_whole_pool_is_ranked(kernel: RBF | Cosine, n: int) -> None:
    embedding = kernel.embed(features(n))
    selection = facility_location(embedding, n)
    assert sorted(selection.indices) == list(range(n))
    assert (np.diff(selection.gains) <= 0).all()
    if kernel != RBF(1e-6):  # to which no row is like another, and exponents of a million round
        assert selection.gains.sum() == pytest.approx(objective(embedding, np.arange(n)), rel=1e-6)
        assert certificate(embedding, selection) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_duplicates_come_after_all_others(kernel: RBF | Cosine) -> None:
    x = features(150)
    selection = facility_location(kernel.embed(np.vstack([x, x, x])), 450)
    if kernel != RBF(1e6):  # to which all rows are equal
        assert set(selection.indices[:150] % 150) == set(range(150))
    order = np.argsort(selection.indices)
    assert (order[:150] < order[150:300]).all() and (order[150:300] < order[300:]).all()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_zero_vectors_among_others_are_prompts_like_any(kernel: RBF | Cosine) -> None:
    x = features(200)
    x[[0, 7, 150]] = 0
    embedding = kernel.embed(x)
    selection = facility_location(embedding, 200)
    assert sorted(selection.indices) == list(range(200))
    assert certificate(embedding, selection) < 1e-4


@pytest.mark.parametrize("kernel", [RBF(), Cosine()], ids=str)
def test_half_precision_features_are_taken(kernel: RBF | Cosine) -> None:
    half = features(300).astype(np.float16)
    selection = facility_location(kernel.embed(half), 100)
    expected = facility_location(kernel.embed(half.astype(np.float32)), 100)
    np.testing.assert_array_equal(selection.indices, expected.indices)


def test_vectors_may_be_mapped_from_a_file(tmp_path: Path) -> None:
    embedding = RBF().embed(features(300))
    np.save(tmp_path / "vectors.npy", embedding.vectors)
    mapped = replace(embedding, vectors=np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    np.testing.assert_array_equal(facility_location(mapped, 100).indices, facility_location(embedding, 100).indices)
    assert objective(mapped, np.arange(5)) == objective(embedding, np.arange(5))


@pytest.mark.slow
def test_a_pool_sorted_by_cluster_keeps_its_lists() -> None:
    """All pairs that count lie in few tiles; the room for lists is shared by all tiles."""
    x = np.repeat(np.random.default_rng(0).normal(size=(3, 8)), 700, axis=0)
    x += 0.05 * np.random.default_rng(1).normal(size=x.shape)
    embedding = RBF().embed(x.astype(np.float32))
    assert certificate(embedding, facility_location(embedding, 500, cache_entries=10_000)) < 1e-4
