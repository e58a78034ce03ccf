"""Passes by numpy and by torch, against the float64 matrix; on a GPU too, where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from aliquot.selection.greedy import facility_location as submodular
from aliquot.selection.greedy import passes as products
from aliquot.selection.greedy import passes_torch as device
from aliquot.selection.greedy.certificate import certificate, objective
from aliquot.selection.greedy.cover import no_cover
from aliquot.selection.greedy.facility_location import facility_location
from aliquot.selection.greedy.workers import numpy_workers
from aliquot.selection.kernels import RBF, Cosine, Embedding
from aliquot.types import Selection

BACKENDS = [
    "numpy",
    "torch on cpu",
    pytest.param(
        "torch on cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
    ),
]


def make(backend: str, embedding: Embedding, workers: ThreadPoolExecutor) -> products.Passes:
    if backend == "numpy":
        return products.HostPasses(embedding, workers)
    return device.DevicePasses(embedding, backend.removeprefix("torch on "))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let `facility_location` run on this backend."""
    monkeypatch.setattr(submodular, "passes_on", lambda _, embedding, workers: make(request.param, embedding, workers))
    return request.param


def features(n: int, d: int = 8) -> np.ndarray:
    """Clusters, two rows of them exact copies."""
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n // 25, d))[rng.integers(n // 25, size=n)] + 0.4 * rng.normal(size=(n, d))
    x[5], x[n // 2] = x[3], x[3]
    return x.astype(np.float32)


def matrix(embedding: Embedding) -> np.ndarray:
    n = len(embedding)
    return embedding.similarity(np.repeat(np.arange(n), n), np.tile(np.arange(n), n)).reshape(n, n)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [RBF(), Cosine()], ids=str)
@pytest.mark.parametrize("first", [0, 512])
def test_the_symmetric_pass_adds_up_what_all_rows_gain(backend: str, kernel: RBF | Cosine, first: int) -> None:
    embedding = kernel.embed(features(1200))
    w = matrix(embedding)
    chosen = np.array([7, 300])
    weight = np.random.default_rng(1).random(1200).astype(np.float32)
    with numpy_workers() as workers:
        passes = make(backend, embedding, workers)
        cover = no_cover(embedding)
        passes.cover_by(chosen, cover)
        np.testing.assert_allclose(cover.quanta / 2**30, w[chosen].max(axis=0), atol=1e-5)
        sums, start = np.zeros((2, 1200)), first
        for added in passes.sums(first, cover, weight):
            sums[:, start:] += added
            start += products.STRIP
    over = np.maximum(w - w[chosen].max(axis=0)[:, None], 0)
    for found, expected in zip(sums, (w, over), strict=True):
        np.testing.assert_allclose(found[first:], weight[first:] @ expected[first:, first:], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_gains_and_lists_are_those_of_the_matrix(backend: str, weighted: bool) -> None:
    embedding = RBF().embed(features(700))
    w, chosen, batch = matrix(embedding), np.array([7, 300]), np.array([2, 300, 5, 699, 3])
    weight = np.arange(700) if weighted else None
    with numpy_workers() as workers:
        passes = make(backend, embedding, workers)
        cover = no_cover(embedding)
        passes.cover_by(chosen, cover)
        found = passes.scan(batch, cover, weight, np.empty((2, 1 << 16), dtype=np.int32))
    over = np.maximum(w - w[chosen].max(axis=0)[:, None], 0)[:, batch]
    np.testing.assert_allclose(found.gains / 2**30, (np.ones(700) if weight is None else weight) @ over, rtol=1e-4)
    assert found.gains[2] == found.gains[4], "equal rows tie exactly"
    for c, j in enumerate(batch):
        spans = [slice(a, a + size) for a, size in zip(found.starts[c], found.lengths[c], strict=True)]
        rows = np.concatenate([found.rows[span] for span in spans])
        quanta = np.concatenate([found.quanta[span] for span in spans])
        assert len(set(rows)) == len(rows)
        np.testing.assert_allclose(quanta / 2**30, w[rows, j], atol=1e-5)
        assert (np.setdiff1d(np.flatnonzero(over[:, c] > 1e-5), rows)).size == 0


def test_lists_without_room_are_marked_and_their_gains_are_right(backend: str) -> None:
    embedding = RBF().embed(features(700))
    with numpy_workers() as workers:
        passes = make(backend, embedding, workers)
        cover = no_cover(embedding)
        whole = passes.scan(np.arange(20), cover, None, np.empty((2, 1 << 16), dtype=np.int32))
        cut = passes.scan(np.arange(20), cover, None, np.empty((2, 100), dtype=np.int32))
    np.testing.assert_array_equal(cut.gains, whole.gains)
    assert (whole.lengths >= 0).all()
    assert (cut.lengths < 0).any(axis=1).all()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [RBF(0.25), RBF(0.02), Cosine()], ids=str)
def test_every_backend_is_greedy_and_goes_on_from_its_own_picks(backend: str, kernel: RBF | Cosine) -> None:
    embedding = kernel.embed(features(900))
    at_once = facility_location(embedding, 500, cache_entries=20_000)
    assert certificate(embedding, at_once) < 1e-4
    assert at_once.gains.sum() == pytest.approx(objective(embedding, at_once.indices), rel=1e-5)
    extended = facility_location(embedding, 500, start=at_once.head(130), cache_entries=20_000)
    np.testing.assert_array_equal(extended.indices, at_once.indices)
    np.testing.assert_array_equal(extended.gains, at_once.gains)


@pytest.mark.slow
def test_vectors_larger_than_the_device_stream_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = RBF().embed(features(900))
    expected = facility_location(embedding, 300)
    monkeypatch.setattr(device, "_HOST_MEMORY", 1000)
    monkeypatch.setattr(submodular, "passes_on", lambda _, e, workers: device.DevicePasses(e, "cpu"))
    selection = facility_location(embedding, 300)
    assert objective(embedding, selection.indices) == pytest.approx(objective(embedding, expected.indices), rel=1e-6)
    assert certificate(embedding, selection) < 1e-4


def test_torch_keeps_its_precision_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = RBF().embed(features(100))
    torch.set_float32_matmul_precision("high")
    try:
        list(device.DevicePasses(embedding, "cpu").sums(0, no_cover(embedding), np.ones(100, np.float32)))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_certificate_finds_a_pick_that_was_not_the_best() -> None:
    embedding = RBF().embed(features(300))
    chosen = facility_location(embedding, 40)
    assert certificate(embedding, chosen, num_turns=40) < 1e-5
    wrong = chosen.indices.copy()
    wrong[20] = 299 if 299 not in wrong else 298
    assert certificate(embedding, Selection(wrong, chosen.gains), num_turns=40) > 1e-3
