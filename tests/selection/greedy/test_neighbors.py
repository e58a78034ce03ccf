"""Neighbours against the full matrix and against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from small_pools import matrix, mixture

from aliquot.selection.greedy import neighbors, workers
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.fixed_point import ONE
from aliquot.selection.greedy.neighbors import Neighbors, device_search, nearest
from aliquot.selection.kernels import RBF, Cosine, Embedding, Kernel

KERNELS = [RBF(0.02), RBF(0.25), RBF(5.0), Cosine()]


def exact(embedding: Embedding, m: int) -> Neighbors:
    return nearest(embedding, m, approximate=False, workspace=Workspace())


def approximate(embedding: Embedding, m: int) -> Neighbors:
    return nearest(embedding, m, approximate=True, workspace=Workspace())


def assert_same(one: Neighbors, two: Neighbors) -> None:
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.quanta, two.quanta)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("m", [1, 7, 64])
def test_are_the_most_similar_prompts_of_the_full_matrix(kernel: Kernel, m: int) -> None:
    embedding = kernel.embed(mixture(700))
    w, found = matrix(embedding), exact(embedding, m)
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(700))
    np.testing.assert_allclose(found.quanta / ONE, -np.sort(-w, axis=1)[:, :m], rtol=1e-4, atol=1e-5)
    kept = found.quanta > 0
    of = np.broadcast_to(np.arange(700)[:, None], kept.shape)
    np.testing.assert_allclose(w[of[kept], found.rows[kept]], found.quanta[kept] / ONE, rtol=1e-4, atol=1e-5)


def test_agree_with_scikit_learn() -> None:
    x = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)  # without duplicates, so without ties
    expected = NearestNeighbors(n_neighbors=20).fit(x).kneighbors(x, return_distance=False)
    np.testing.assert_array_equal(exact(RBF().embed(x), 20).rows, expected)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_another_device_finds_the_same(device: str, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    monkeypatch.setattr(neighbors, "_DEVICE_UNIT", 64)
    monkeypatch.setattr(neighbors, "_DEVICE_WIDTH", 128)
    embedding = kernel.embed(np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32))
    rows = np.random.default_rng(2).permutation(300)[:200]
    found, expected = device_search(embedding, 16, device)(rows), exact(embedding, 16)
    np.testing.assert_allclose(found.quanta / ONE, expected.quanta[rows] / ONE, atol=2e-6)
    assert (found.rows == expected.rows[rows])[expected.quanta[rows] > 1000].mean() > 0.999


@pytest.mark.parametrize("n", [1, 15, 16, 17, 33, 64, 65])
def test_the_borders_of_tiles_change_nothing(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = RBF().embed(mixture(n, seed=n))
    expected = exact(embedding, 5)
    monkeypatch.setattr(neighbors, "_BLOCK", 32)
    monkeypatch.setattr(neighbors, "_UNIT", 16)
    monkeypatch.setattr(neighbors, "_WIDTH", 16)
    found = exact(embedding, 5)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.quanta / ONE, expected.quanta / ONE, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("find", [exact, approximate])
def test_the_number_of_threads_changes_nothing(find, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    embedding = RBF().embed(mixture(4000))
    before = faiss.omp_get_max_threads()
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(workers, "num_cores", lambda cores=cores: cores)
        faiss.omp_set_num_threads(cores)
        found.append(find(embedding, 20))
    faiss.omp_set_num_threads(before)
    assert_same(*found)


@pytest.mark.parametrize("kernel", [RBF(), Cosine()], ids=str)
@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_of_more_duplicates_than_neighbors_itself_and_the_lower_rows_are_kept(kernel: Kernel, constant: float) -> None:
    found = exact(kernel.embed(np.full((300, 4), constant, dtype=np.float32)), 3)
    others = [[1, 2], [0, 2], *(298 * [[0, 1]])]
    np.testing.assert_array_equal(found.rows, np.column_stack([np.arange(300), others]))
    assert (found.quanta == ONE).all()


@pytest.mark.parametrize("find", [exact, approximate])
def test_prompts_without_anything_similar_keep_themselves_alone(find) -> None:
    x = np.vstack([np.eye(8), np.zeros((1, 8)), -np.eye(8)]).astype(np.float32)
    for kernel in (RBF(1e-6), RBF(1e-6, "absolute"), Cosine()):
        found = find(kernel.embed(x), 6)
        np.testing.assert_array_equal(found.rows[:, 0], np.arange(17))
        # Right angles have a similarity of rounding, see Cosine.
        np.testing.assert_allclose(
            found.quanta / ONE, [[1, 0, 0, 0, 0, 0]] * 17, atol=0 if kernel != Cosine() else 1e-6
        )


@pytest.mark.slow
def test_approximate_neighbors_are_nearly_all_right_and_similar_as_they_should_be() -> None:
    embedding = RBF().embed(mixture(5000, d=16))
    found, expected = approximate(embedding, 32), exact(embedding, 32)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found.rows, expected.rows, strict=True)]
    assert 0.9 < np.mean(hits) / 32 <= 1
    rows = np.repeat(np.arange(5000), 32)
    np.testing.assert_allclose(
        embedding.similarity(rows, found.rows.ravel()), found.quanta.ravel() / ONE, atol=1e-5
    )  # fmt: skip


@pytest.mark.parametrize("find_approximate", [False, True])
def test_a_search_that_was_cut_off_goes_on(
    find_approximate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding, asked = RBF().embed(mixture(400)), []
    expected = nearest(embedding, 8, find_approximate, Workspace())
    monkeypatch.setattr(neighbors, "_BLOCK", 128)
    monkeypatch.setattr(Checkpoint, "due", lambda self: asked.append(self) or True)

    def killed(self: Checkpoint, arrays) -> None:
        save(self, arrays)
        if len(asked) == 2:
            raise KeyboardInterrupt

    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        nearest(embedding, 8, find_approximate, Workspace(tmp_path))
    assert_same(nearest(embedding, 8, find_approximate, Workspace(tmp_path)), expected)
    assert len(asked) == 4  # two blocks before, two after
