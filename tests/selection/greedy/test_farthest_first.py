"""Farthest-first against the float64 loop over all distances: bit for bit, however it is cut up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aliquot.selection.greedy import farthest_first as module
from aliquot.selection.greedy import workers
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace, clear
from aliquot.selection.greedy.farthest_first import farthest_first, most_central

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


@pytest.mark.slow
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


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), num_start=st.integers(1, 9), seed=st.integers(0, 999))
def test_ties_on_a_grid_go_to_the_lower_row(n: int, num_start: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.integers(3, size=(n, 3)) - 1).astype(np.float32)
    start = rng.permutation(n)[:num_start]
    found, _ = farthest_first(x, start, n)
    assert found.tolist() == brute_force(x, start.tolist(), n)[0].tolist()


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("done", [1, 300, 900])
def test_what_a_shallower_one_kept_saves_work_and_changes_no_bit(done: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_FRONT", 200)
    x, first = mixture(2000, 12), np.array([7])
    expected = farthest_first(x, first, 1000)
    met = []

    def product(self: module._Traversal, points: torch.Tensor, part: slice, buffer: np.ndarray) -> np.ndarray:
        met.append(len(points) * (part.stop - part.start))
        return multiply(self, points, part, buffer)

    multiply = module._Traversal._product
    monkeypatch.setattr(module._Traversal, "_product", product)
    start = farthest_first(x, first, done, Workspace(tmp_path))[0]
    clear(tmp_path)
    in_two, radii = farthest_first(x, start, 1000, Workspace(tmp_path))
    np.testing.assert_array_equal(in_two, expected[0])
    np.testing.assert_array_equal(radii[done:], expected[1][done:])
    pairs_in_two = sum(met)
    met.clear()
    farthest_first(x, first, 1000)
    assert pairs_in_two <= 1.05 * sum(met)  # a round that ends at `done` is shorter than others
    met.clear()
    np.testing.assert_array_equal(farthest_first(x, first, 500, Workspace(tmp_path))[0], expected[0][:500])
    np.testing.assert_array_equal(farthest_first(x, first, 1100, Workspace(tmp_path))[0][:1000], expected[0])
    assert sum(met) < pairs_in_two / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "used"), [([7], 300), ([9, 3], 0), ([9], 0), ([*range(40)], 0), (["kept", 1500, 1600], 300)]
)
def test_what_was_kept_serves_only_what_begins_alike(start: list, used: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_FRONT", 200)
    x = mixture(2000, 12)
    kept = farthest_first(x, np.array([7]), 300, Workspace(tmp_path))[0]
    begin = np.array([*(kept if start[0] == "kept" else start[:1]), *start[1:]])
    assert len(set(begin.tolist())) == len(begin)
    known = module._known_picks(begin, Checkpoint(tmp_path, x).load())
    assert len(known) == used
    again, radii = farthest_first(x, begin, 900, Workspace(tmp_path))
    expected, expected_radii = farthest_first(x, begin, 900)
    np.testing.assert_array_equal(again, expected)
    np.testing.assert_array_equal(radii[len(begin) :], expected_radii[len(begin) :])
    deeper = farthest_first(x, again, 1200, Workspace(tmp_path))[0]  # and so does what this one kept in its place
    np.testing.assert_array_equal(deeper, farthest_first(x, begin, 1200)[0])
    without_its_last = begin[:-1] if len(begin) > 1 else begin
    found = farthest_first(x, without_its_last, 900, Workspace(tmp_path))[0]
    np.testing.assert_array_equal(found, farthest_first(x, without_its_last, 900)[0])


@pytest.mark.parametrize("d", [1, 6, 40])
@pytest.mark.parametrize("pair", [0, 800], ids=["as narrow as can be", "by what it costs"])
def test_what_sketches_leave_out_changes_no_bit(pair: float, d: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "_FRONT", 100)
    x = mixture(1200, d, shift=100.0)
    expected = farthest_first(x, np.array([0]), 1200)
    widths = []

    def choose(self: module._Traversal, front: np.ndarray) -> None:
        choose_sketch(self, front)
        widths.append(self.sketch.width)

    choose_sketch = module._Traversal._choose_sketch
    monkeypatch.setattr(module._Traversal, "_choose_sketch", choose)
    monkeypatch.setattr(module, "_FIRST_LOOK", 50)
    monkeypatch.setattr(module, "_PAIR", pair - d)
    for one, two in zip(farthest_first(x, np.array([0]), 1200), expected, strict=True):
        np.testing.assert_array_equal(one, two)
    assert len(widths) > 5
    assert max(widths) <= d
    assert d == 1 or min(widths) < d


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


def test_one_far_outlier_costs_no_more_looks_at_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = mixture(2000, 12)

    def looks(x: np.ndarray) -> int:
        """How many pairs the products of bringing bounds up to date do not rule out."""
        seen = []
        lower_close = module.loops.lower_close

        def counting(points, norms, places, centers, product, bound) -> None:
            least = (norms[places, None] + norms[centers]) - 2 * product
            seen.append(np.count_nonzero(least < bound[places, None]))
            lower_close(points, norms, places, centers, product, bound)

        with monkeypatch.context() as during:
            during.setattr(module.loops, "lower_close", counting)
            farthest_first(x, np.array([0]), 600)
        return sum(seen)

    far = x.copy()
    far[17] = 1e6
    assert looks(far) < 1.5 * looks(x)
