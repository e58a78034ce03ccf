"""Farthest-first against the float64 loop over all distances: bit for bit, however it is cut up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aliquot.greedy import farthest_first as module
from aliquot.greedy import workers
from aliquot.greedy.checkpoint import Checkpoint, Workspace
from aliquot.greedy.farthest_first import farthest_first, most_central

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


def brute_force(points: np.ndarray, start: list[int], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every distance in float64 as a difference; the lowest row of the farthest."""
    x = points.astype(np.float64)
    between = np.square(x[:, None] - x[None]).sum(axis=2)
    chosen, squared = list(start), [0.0] * len(start)
    while len(chosen) < k:
        nearest = between[chosen].min(axis=0)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
        squared.append(float(nearest.max()))
    return np.array(chosen), np.array(squared)


def mixture(n: int, d: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(9, d))[rng.integers(9, size=n)] + rng.gamma(1.0, 0.3, size=(n, 1)) * rng.normal(size=(n, d))
    return (x + shift).astype(np.float32)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("shift", [0.0, 1000.0])  # far from the origin, products in float32 keep no digit of a distance
@pytest.mark.parametrize("d", [1, 6, 257])
def test_picks_and_radii_are_those_of_float64(d: int, shift: float, device: str, monkeypatch) -> None:
    monkeypatch.setattr(module, "_FRONT", 50)
    x = mixture(300, d, shift=shift)
    expected, squared = brute_force(x, [5], 300)
    found, radii = farthest_first(x, np.array([5]), 300, Workspace(device=device))
    assert found.tolist() == expected.tolist()
    np.testing.assert_allclose(radii[1:], squared[1:], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), num_start=st.integers(1, 9), seed=st.integers(0, 999))
def test_ties_on_a_grid_go_to_the_lower_row(n: int, num_start: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.integers(3, size=(n, 3)) - 1).astype(np.float32)
    start = rng.permutation(n)[:num_start]
    found, _ = farthest_first(x, start, n)
    assert found.tolist() == brute_force(x, start.tolist(), n)[0].tolist()


@pytest.mark.parametrize(("front", "block", "tile"), [(1, 1, 1), (7, 3, 5), (64, 16, 200), (2048, 512, 512)])
def test_how_the_work_is_cut_up_changes_no_bit(front: int, block: int, tile: int, monkeypatch) -> None:
    x = np.concatenate([mixture(150, 20), mixture(150, 20)])
    expected = farthest_first(x, np.array([0]), 250)
    for name, value in (("_FRONT", front), ("_BLOCK", block), ("_TILE", tile), ("_CELLS_PER_ROOT", 1 + front % 4)):
        monkeypatch.setattr(module, name, value)
    for one, two in zip(farthest_first(x, np.array([0]), 250), expected, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("cores", [1, 5])
def test_the_number_of_workers_changes_no_bit(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 64)
    x = mixture(3000, 16)
    expected = farthest_first(x, np.array([0]), 1000)
    monkeypatch.setattr(module, "num_cores", lambda: cores)
    monkeypatch.setattr(workers, "num_cores", lambda: cores)
    for one, two in zip(farthest_first(x, np.array([0]), 1000), expected, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("done", [1, 2, 300, 900])
def test_going_on_from_its_own_picks_gives_what_it_would_have_picked_at_once(done: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "_FRONT", 200)
    x = mixture(2000, 12)
    indices, squared = farthest_first(x, np.array([7]), 1000)
    again, radii = farthest_first(x, indices[:done], 1000)
    np.testing.assert_array_equal(again, indices)
    np.testing.assert_array_equal(radii[done:], squared[done:])


@pytest.mark.parametrize("k", [900, 1200, 100])
def test_a_traversal_that_was_cut_off_is_taken_up_again(k: int, tmp_path: Path, monkeypatch) -> None:
    """Also where the next one is to go deeper, or less deep than the last had come."""
    monkeypatch.setattr(module, "_FRONT", 60)
    x = mixture(1500, 12)
    expected = farthest_first(x, np.array([7]), k)
    rounds = []

    def cut_off(self: Checkpoint) -> bool:
        if len(rounds) == 25:
            raise KeyboardInterrupt
        rounds.append(1)
        return len(rounds) % 10 == 0

    with monkeypatch.context() as during:
        during.setattr(Checkpoint, "due", cut_off)
        with pytest.raises(KeyboardInterrupt):
            farthest_first(x, np.array([7]), 900, Workspace(tmp_path))
    with np.load(tmp_path / "checkpoint.npz") as saved:
        assert 100 < len(saved["indices"]) < 900
    for one, two in zip(farthest_first(x, np.array([7]), k, Workspace(tmp_path)), expected, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_scale_of_the_features_does_not_matter(scale: float) -> None:
    x = mixture(200, 5) * np.float32(scale)
    assert farthest_first(x, np.array([0]), 200)[0].tolist() == brute_force(x, [0], 200)[0].tolist()


def test_one_far_outlier_does_not_blur_the_rest() -> None:
    x = mixture(200, 5)
    x[17] = 1e4
    assert farthest_first(x, np.array([0]), 200)[0].tolist() == brute_force(x, [0], 200)[0].tolist()


def test_the_most_central_row_is_the_nearest_to_the_mean() -> None:
    x = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    assert most_central(x) == np.square(x - x.mean(axis=0)).sum(axis=1).argmin()
    assert most_central(np.ones((6, 2), dtype=np.float32)) == 0
